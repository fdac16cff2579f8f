//! An event as a condition sees it: JSON as values of CEL.

use std::collections::HashMap;

use cel::common::{
    types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt},
    value::Val,
};
use serde_json::Value;

use super::Facts;

/// The variable `event`, and what bounds the work that can be done on it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) event: Box<dyn Val>,
    /// Bytes of it, about.
    pub(super) bytes: usize,
    /// Members of its longest list or object: the turns that a macro takes at most.
    pub(super) longest: usize,
}

/// Bytes of an event beside its data, about.
const ENVELOPE_BYTES: usize = 256;

/// Members of the envelope.
const ENVELOPE_MEMBERS: usize = 6;

impl Shown {
    /// The event of these facts; with its data and the length of its JSON, where that is asked for.
    pub(super) fn new(facts: &Facts<'_>, data: Option<(Value, usize)>) -> Self {
        let resource = object([
            ("type", text(facts.resource_kind)),
            ("id", text(facts.resource_id)),
            ("version", Box::new(CelInt::from(facts.resource_version))),
        ]);
        let mut members = vec![
            ("type", text(facts.kind)),
            ("resource", resource),
            ("merchantId", text(&facts.merchant.to_string())),
            ("occurredAt", text(&facts.occurred_at.to_string())),
        ];
        let (mut bytes, mut longest) = (ENVELOPE_BYTES, ENVELOPE_MEMBERS);
        if let Some((data, data_bytes)) = data {
            bytes = bytes.saturating_add(data_bytes);
            members.push(("data", converted(data, &mut longest)));
        }
        Self {
            event: object(members),
            bytes,
            longest,
        }
    }
}

fn object(members: impl IntoIterator<Item = (&'static str, Box<dyn Val>)>) -> Box<dyn Val> {
    let members: HashMap<CelMapKey<'static>, Box<dyn Val>> = members
        .into_iter()
        .map(|(name, value)| (CelMapKey::from(name), value))
        .collect();
    Box::new(CelMap::from(members))
}

fn text(text: &str) -> Box<dyn Val> {
    Box::new(CelString::from(text.to_owned()))
}

/// JSON as CEL. As deep as the parser lets it be, which is 128 levels.
fn converted(value: Value, longest: &mut usize) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            // An int wherever it fits, as literals in a condition are ints.
            (Some(int), _) => Box::new(CelInt::from(int)),
            (None, Some(uint)) => Box::new(CelUInt::from(uint)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text)),
        Value::Array(items) => {
            *longest = (*longest).max(items.len());
            let items: Vec<Box<dyn Val>> = items
                .into_iter()
                .map(|item| converted(item, longest))
                .collect();
            Box::new(CelList::from(items))
        }
        Value::Object(members) => {
            *longest = (*longest).max(members.len());
            let members: HashMap<CelMapKey<'static>, Box<dyn Val>> = members
                .into_iter()
                .map(|(name, value)| (CelMapKey::from(name), converted(value, longest)))
                .collect();
            Box::new(CelMap::from(members))
        }
    }
}
