//! What an attempt sent, rendered again for people to look at.

use std::collections::BTreeMap;

use bytes::Bytes;
use kernel::id::MerchantId;

use super::{MASK, MadeAttempt, SentRequest, store::Version};
use crate::{
    endpoint::settings::Authentication,
    error::Error,
    event::{Event, Receiver},
    render::{Renderer, batch_body},
};

/// Bytes of a body that are shown at most: what an event is and the beginning of its resource.
const BODY_EXCERPT_BYTES_MAX: usize = 2_048;

/// What every attempt at one event by one version of an endpoint sent: all but the time.
#[derive(Debug)]
pub(super) struct Sent {
    request: SentRequest,
    timestamp_header: String,
}

impl Sent {
    /// Renders it, without secrets, and without the personal part of the event: nobody opens it for this.
    pub(super) fn render(
        merchant: MerchantId,
        event: &Event,
        sequence: i64,
        receiver: &Receiver,
        version: &Version,
    ) -> Result<Self, Error> {
        let settings = &version.settings;
        let (body, encoding, is_batch) = match Renderer::compile(&settings.payload) {
            Ok(renderer) => {
                let event_bytes = renderer.render(event, merchant, receiver, None)?;
                // A template that fails now has failed then: nothing was sent.
                let body = renderer.body(&event_bytes, sequence).unwrap_or_default();
                let is_batch = renderer.batch_events_max().is_some();
                let body = if is_batch { batch_body(&[body]) } else { body };
                let encoded = renderer.encode(body.clone());
                (body, encoded.content_encoding, is_batch)
            }
            // Settings that an older or a newer binary took.
            Err(_) => (Bytes::new(), None, false),
        };
        let signature = &settings.signature;
        let mut headers = BTreeMap::from([
            ("content-type".to_owned(), "application/json".to_owned()),
            (signature.signature_header.clone(), MASK.to_owned()),
        ]);
        if !is_batch {
            headers.insert(signature.id_header.clone(), event.id.to_string());
        }
        if let Some(encoding) = encoding {
            headers.insert("content-encoding".to_owned(), encoding.to_owned());
        }
        if let Some(Authentication::OauthClientCredentials { .. }) = settings.authentication {
            headers.insert("authorization".to_owned(), MASK.to_owned());
        }
        for name in &settings.header_names {
            headers.insert(name.to_ascii_lowercase(), MASK.to_owned());
        }
        Ok(Self {
            request: SentRequest {
                url: version.url.clone(),
                headers,
                body_excerpt: beginning(&String::from_utf8_lossy(&body)).to_owned(),
                is_batch,
                has_personal_part: event.personal.is_some(),
            },
            timestamp_header: signature.timestamp_header.clone(),
        })
    }

    /// What this attempt sent.
    pub(super) fn at(&self, attempt: &MadeAttempt) -> SentRequest {
        let mut request = self.request.clone();
        request.headers.insert(
            self.timestamp_header.clone(),
            attempt.started_at.unix_seconds().to_string(),
        );
        request
    }
}

/// As much of a text as is shown, cut between characters.
fn beginning(text: &str) -> &str {
    let end = text.floor_char_boundary(BODY_EXCERPT_BYTES_MAX);
    text.get(..end).unwrap_or(text)
}
