//! What the body of a delivery is: an event in the form that an endpoint has asked for, as bytes.
//!
//! A [`Renderer`] is made of an endpoint's [`PayloadSettings`], when they are saved (so that whoever writes them hears what is wrong) and by the worker, once
//! per version of the endpoint. It makes a [`Rendered`] of an event, which is good for every endpoint and receiver that has the same [`RenderKey`]: the event is
//! serialised once, and each delivery costs a copy around its number.
//!
//! Invariants: an event that its receiver may no longer see is the same few members whatever the settings, so that a withheld event is always told from others;
//! without a transformation, the bytes are those that `event::envelope` and serde make; what a template of a stranger's may do is bounded in time, stack and memory.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{GzBuilder, write::GzEncoder};
use kernel::id::MerchantId;
use serde_json::Value;

use crate::{
    endpoint::settings::{Compression, PayloadSettings, Shape},
    event::{self, Envelope, Event, Receiver},
};

mod template;
mod version;

use template::Template;
pub use template::TransformationError;
use version::{VERSIONS, VersionIndex};

/// Bytes from which a body is compressed: below, the header costs more than is saved.
const COMPRESSED_BYTES_MIN: usize = 1_024;

/// Bytes of an envelope without its data, about: what is set aside for them.
const ENVELOPE_BYTES: usize = 512;

/// The level of gzip: its usual one. JSON becomes a fifth to a tenth; higher levels take twice the time for a few percent.
const COMPRESSION_LEVEL: u32 = 6;

/// Why settings can't be rendered. Its text is one sentence for whoever wrote them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The API has no such version.
    #[error("the API has no version {given:?}, only {known}")]
    ApiVersion {
        /// What was asked for.
        given: String,
        /// Those that there are.
        known: String,
    },
    /// The template can't be taken; the line counts from 1.
    #[error("{reason} (line {line})")]
    Transformation {
        /// The line.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
}

/// What the bytes of an event depend on beside the event. Events and keys that are equal have equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RenderKey {
    shape: Shape,
    version: VersionIndex,
    /// Whether the receiver may see the event; if not, nothing else counts.
    seen: bool,
    personal: bool,
}

/// The form in which an endpoint has asked for events: how much of each, and in which version of the API. What it is sent has it, what it leases, and what is
/// read of its stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Form {
    shape: Shape,
    version: VersionIndex,
}

impl Form {
    /// The form that these settings ask for.
    pub(crate) fn of(settings: &PayloadSettings) -> Result<Self, RenderError> {
        let version = match settings.api_version.as_deref() {
            None => VersionIndex::NEWEST,
            Some(name) => VERSIONS.find(name).ok_or_else(|| RenderError::ApiVersion {
                given: name.to_owned(),
                known: VERSIONS.names(),
            })?,
        };
        Ok(Self {
            shape: settings.shape,
            version,
        })
    }

    /// Whether the event's personal part is to be opened: only if this receiver sees it, and in this shape.
    pub(crate) fn wants_personal(self, event: &Event, receiver: &Receiver) -> bool {
        self.shape == Shape::Full && receiver.wants_personal(event)
    }

    /// The event as this receiver is given it, under its number if it has one. `personal` is the opened personal part, brought only if
    /// [`Form::wants_personal`] said so; one that is missing has been erased.
    pub(crate) fn show(
        self,
        event: &Event,
        merchant: MerchantId,
        sequence: Option<i64>,
        receiver: &Receiver,
        personal: Option<&Value>,
    ) -> Result<Envelope, serde_json::Error> {
        let personal = personal.filter(|_| self.shape == Shape::Full);
        let mut shown = event::envelope(event, merchant, sequence, receiver, personal)?;
        VERSIONS
            .name(self.version)
            .clone_into(&mut shown.api_version);
        shown.data = match (self.shape, shown.data) {
            (Shape::Full, Some(data)) => {
                Some(VERSIONS.downgrade(self.version, &shown.kind, data)?)
            }
            _ => None,
        };
        Ok(shown)
    }
}

/// Makes bodies for one version of an endpoint's settings.
#[derive(Debug)]
pub struct Renderer {
    form: Form,
    template: Option<Template>,
    batch_events_max: Option<usize>,
    compression: Compression,
}

impl Renderer {
    /// A renderer for these settings.
    pub fn compile(settings: &PayloadSettings) -> Result<Self, RenderError> {
        let template = settings.transformation.as_deref();
        Ok(Self {
            form: Form::of(settings)?,
            template: template.map(Template::compile).transpose()?,
            batch_events_max: settings
                .batch_events_max
                .map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
            compression: settings.compression,
        })
    }

    /// What this renderer's bytes for this receiver depend on beside the event.
    pub(crate) fn key(&self, event: &Event, receiver: &Receiver) -> RenderKey {
        let seen = receiver.may_see(&event.scope, &event.locations);
        RenderKey {
            // What is withheld looks alike.
            shape: if seen {
                self.form.shape
            } else {
                Shape::default()
            },
            version: self.form.version,
            seen,
            personal: self.wants_personal(event, receiver),
        }
    }

    /// Whether the event's personal part is to be opened: only if this receiver sees it, and in this shape.
    pub(crate) fn wants_personal(&self, event: &Event, receiver: &Receiver) -> bool {
        self.form.wants_personal(event, receiver)
    }

    /// The event's bytes for this receiver. `personal` is the opened personal part, brought only if [`Renderer::wants_personal`] said so; one that is missing has
    /// been erased.
    pub(crate) fn render(
        &self,
        event: &Event,
        merchant: MerchantId,
        receiver: &Receiver,
        personal: Option<&Value>,
    ) -> Result<Rendered, serde_json::Error> {
        let shown = self.form.show(event, merchant, None, receiver, personal)?;
        let is_withheld = shown.resource.is_none();
        let data_bytes = shown.data.as_deref().map_or(0, |data| data.get().len());
        let mut whole = Vec::with_capacity(data_bytes + ENVELOPE_BYTES);
        serde_json::to_writer(&mut whole, &shown)?;
        // `sequence` follows `type`, and `type` follows `id`.
        let mut head = b"{\"id\":".to_vec();
        serde_json::to_writer(&mut head, &shown.id)?;
        head.extend_from_slice(b",\"type\":");
        serde_json::to_writer(&mut head, &shown.kind)?;
        Ok(Rendered {
            whole: Bytes::from(whole),
            head_bytes: head.len(),
            is_withheld,
        })
    }

    /// What is sent of an event: itself under its number, or what the template makes of it. An event that is withheld is never transformed.
    ///
    /// A template that fails is a failed attempt, with the error `transformation`.
    pub(crate) fn body(
        &self,
        rendered: &Rendered,
        sequence: i64,
    ) -> Result<Bytes, TransformationError> {
        let plain = rendered.body(sequence);
        match &self.template {
            Some(template) if !rendered.is_withheld => template.render(&plain).map(Bytes::from),
            _ => Ok(plain),
        }
    }

    /// Events that one request carries at most; `None`: one, as it is and not in a list.
    pub const fn batch_events_max(&self) -> Option<usize> {
        self.batch_events_max
    }

    /// The body as it goes over the wire. What is signed is this.
    pub fn encode(&self, body: Bytes) -> Encoded {
        match self.compression {
            Compression::Gzip if body.len() >= COMPRESSED_BYTES_MIN => {
                match gzip(&body) {
                    Ok(bytes) => Encoded {
                        bytes,
                        content_encoding: Some("gzip"),
                    },
                    // Writing to memory does not fail; if it ever does, the receiver reads it all the same.
                    Err(_) => Encoded {
                        bytes: body,
                        content_encoding: None,
                    },
                }
            }
            Compression::Gzip | Compression::None => Encoded {
                bytes: body,
                content_encoding: None,
            },
        }
    }
}

/// An event as bytes, without its number: that differs between endpoints.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    whole: Bytes,
    /// Where the number goes.
    head_bytes: usize,
    is_withheld: bool,
}

impl Rendered {
    /// The event under its number in a stream.
    pub(crate) fn body(&self, sequence: i64) -> Bytes {
        let (head, tail) = self
            .whole
            .split_at_checked(self.head_bytes)
            .unwrap_or((&self.whole, &[]));
        let mut body = Vec::with_capacity(self.whole.len() + SEQUENCE_BYTES_MAX);
        body.extend_from_slice(head);
        body.extend_from_slice(b",\"sequence\":");
        // Writing to memory does not fail.
        let _ = write!(body, "{sequence}");
        body.extend_from_slice(tail);
        Bytes::from(body)
    }
}

/// `,"sequence":` and the longest number.
const SEQUENCE_BYTES_MAX: usize = 32;

/// A body as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// What is sent and signed.
    pub bytes: Bytes,
    /// The header `Content-Encoding`, if there is to be one.
    pub content_encoding: Option<&'static str>,
}

/// Several bodies in one: `{"events":[…]}`, in their order.
pub fn batch_body(parts: &[Bytes]) -> Bytes {
    const HEAD: &[u8] = b"{\"events\":[";
    const TAIL: &[u8] = b"]}";
    let bytes: usize = parts.iter().map(|part| part.len() + 1).sum();
    let mut body = Vec::with_capacity(HEAD.len() + bytes + TAIL.len());
    body.extend_from_slice(HEAD);
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(part);
    }
    body.extend_from_slice(TAIL);
    Bytes::from(body)
}

/// The same bytes for the same body, whenever and wherever: no time and no name are in the header.
fn gzip(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder: GzEncoder<Vec<u8>> = GzBuilder::new().mtime(0).write(
        Vec::with_capacity(body.len() / 4),
        flate2::Compression::new(COMPRESSION_LEVEL),
    );
    encoder.write_all(body)?;
    Ok(Bytes::from(encoder.finish()?))
}

#[cfg(test)]
mod tests;
