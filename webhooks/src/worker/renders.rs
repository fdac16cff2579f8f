//! An event's bytes, made once however many deliveries it has.

use std::sync::{Mutex, PoisonError};

use kernel::id::MerchantId;
use serde_json::Value;

use crate::{
    event::{Event, Receiver},
    render::{RenderKey, Rendered, Renderer},
};

/// What was made of one event so far: some few forms, for its receivers differ in little.
#[derive(Debug, Default)]
pub(super) struct Renders(Mutex<Vec<(RenderKey, Rendered)>>);

impl Renders {
    /// The event as this renderer makes it for this receiver.
    pub(super) fn get(
        &self,
        renderer: &Renderer,
        event: &Event,
        merchant: MerchantId,
        receiver: &Receiver,
        personal: Option<&Value>,
    ) -> Result<Rendered, serde_json::Error> {
        let key = renderer.key(event, receiver);
        let find = |made: &[(RenderKey, Rendered)]| {
            made.iter()
                .find(|(made, _)| *made == key)
                .map(|(_, bytes)| bytes.clone())
        };
        if let Some(bytes) = find(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(bytes);
        }
        // Not under the lock: two that meet here make the same.
        let bytes = renderer.render(event, merchant, receiver, personal)?;
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if find(&made).is_none() {
            made.push((key, bytes.clone()));
        }
        Ok(bytes)
    }
}
