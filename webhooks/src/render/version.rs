//! The versions of the API that `data` can have the forms of, and how an older form is made of the newest.
//!
//! A new version goes to the front, and the one that was there gets a step: a function from the form of the version before it in the list (the next
//! newer one) to its own, for the types whose form has changed. An older form is made step by step, so that no version need know of more than its neighbour.

use serde_json::{Value, value::RawValue};

/// From the form of the next newer version to this one's; types that have not changed are returned as they came.
type Step = fn(kind: &str, data: Value) -> Value;

/// A version of the API.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    /// The day it was made: `2026-11-01`.
    name: &'static str,
    /// `None` for the newest.
    from_newer: Option<Step>,
}

/// A place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct VersionIndex(usize);

impl VersionIndex {
    pub(super) const NEWEST: Self = Self(0);
}

impl Default for VersionIndex {
    fn default() -> Self {
        Self::NEWEST
    }
}

/// The versions, newest first.
#[derive(Debug)]
pub(super) struct Versions(&'static [Version]);

/// The versions that there are.
pub(super) static VERSIONS: Versions = Versions(&[Version {
    name: crate::event::API_VERSION,
    from_newer: None,
}]);

impl Versions {
    pub(super) fn find(&self, name: &str) -> Option<VersionIndex> {
        let place = self.0.iter().position(|version| version.name == name);
        place.map(VersionIndex)
    }

    pub(super) fn name(&self, index: VersionIndex) -> &'static str {
        self.0
            .get(index.0)
            .map_or(crate::event::API_VERSION, |version| version.name)
    }

    /// All names, for people.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|version| version.name).collect();
        names.join(", ")
    }

    /// `data`, which has the newest form, in the form of a version.
    pub(super) fn downgrade(
        &self,
        index: VersionIndex,
        kind: &str,
        data: Box<RawValue>,
    ) -> Result<Box<RawValue>, serde_json::Error> {
        let steps = self.0.get(..=index.0).unwrap_or_default();
        let mut steps = steps
            .iter()
            .filter_map(|version| version.from_newer)
            .peekable();
        if steps.peek().is_none() {
            return Ok(data);
        }
        let data: Value = serde_json::from_str(data.get())?;
        let older = steps.fold(data, |data, step| step(kind, data));
        serde_json::value::to_raw_value(&older)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// What a later list may look like: `number` was a number once, and was called `no` before.
    static LATER: Versions = Versions(&[
        Version {
            name: "2028-01-01",
            from_newer: None,
        },
        Version {
            name: "2027-01-01",
            from_newer: Some(|kind, mut data| {
                if kind == "order.placed"
                    && let Some(number) = data.get("number").and_then(Value::as_str)
                {
                    let number = number.parse::<u64>().unwrap_or_default();
                    data.as_object_mut()
                        .and_then(|data| data.insert("number".to_owned(), number.into()));
                }
                data
            }),
        },
        Version {
            name: "2026-11-01",
            from_newer: Some(|_, mut data| {
                if let Some(data) = data.as_object_mut()
                    && let Some(number) = data.remove("number")
                {
                    data.insert("no".to_owned(), number);
                }
                data
            }),
        },
    ]);

    fn shown(version: &str, kind: &str) -> String {
        let data = RawValue::from_string(r#"{"number":"17"}"#.to_owned()).unwrap();
        let index = LATER.find(version).unwrap();
        LATER.downgrade(index, kind, data).unwrap().get().to_owned()
    }

    #[test]
    fn an_older_form_is_made_step_by_step() {
        assert_eq!(shown("2028-01-01", "order.placed"), r#"{"number":"17"}"#);
        assert_eq!(shown("2027-01-01", "order.placed"), r#"{"number":17}"#);
        assert_eq!(shown("2026-11-01", "order.placed"), r#"{"no":17}"#);
        assert_eq!(shown("2026-11-01", "order.paid"), r#"{"no":"17"}"#);
    }

    #[test]
    fn the_newest_is_the_one_that_events_are_written_in() {
        assert_eq!(
            VERSIONS.name(VersionIndex::NEWEST),
            crate::event::API_VERSION
        );
        assert_eq!(
            VERSIONS.find(crate::event::API_VERSION),
            Some(VersionIndex::NEWEST)
        );
        assert_eq!(VERSIONS.find("2020-01-01"), None);
        assert_eq!(LATER.names(), "2028-01-01, 2027-01-01, 2026-11-01");
    }
}
