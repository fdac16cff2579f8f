//! What an attempt sent, rendered again for people to look at.

use std::collections::BTreeMap;

use kernel::id::MerchantId;

use super::{MASK, MadeAttempt, SentRequest, store::Version};
use crate::{
    error::Error,
    event::{self, Event, Receiver},
};

/// Bytes of a body that are shown at most: what an event is and the beginning of its resource.
const BODY_EXCERPT_BYTES_MAX: usize = 2_048;

/// Renders what `attempt` sent, without secrets, and without the personal part of the event: nobody opens it for this.
pub(super) fn render(
    merchant: MerchantId,
    event: &Event,
    receiver: &Receiver,
    attempt: &MadeAttempt,
    version: Option<&Version>,
) -> Result<SentRequest, Error> {
    let known = Version::default();
    let settings = &version.unwrap_or(&known).settings;
    let signature = &settings.signature;
    let mut headers = BTreeMap::from([
        ("content-type".to_owned(), "application/json".to_owned()),
        (signature.id_header.clone(), event.id.to_string()),
        (
            signature.timestamp_header.clone(),
            attempt.started_at.unix_seconds().to_string(),
        ),
        (signature.signature_header.clone(), MASK.to_owned()),
    ]);
    for name in &settings.header_names {
        headers.insert(name.to_ascii_lowercase(), MASK.to_owned());
    }
    let envelope = event::envelope(event, merchant, Some(attempt.sequence), receiver, None)?;
    let body = serde_json::to_string(&envelope)?;
    Ok(SentRequest {
        url: version.and_then(|version| version.url.clone()),
        headers,
        body_excerpt: beginning(&body).to_owned(),
        has_personal_part: event.personal.is_some(),
    })
}

/// As much of a text as is shown, cut between characters.
fn beginning(text: &str) -> &str {
    let end = text.floor_char_boundary(BODY_EXCERPT_BYTES_MAX);
    text.get(..end).unwrap_or(text)
}
