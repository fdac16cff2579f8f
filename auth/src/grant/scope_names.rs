//! Scopes as JSON lists them: an array of names.

use kernel::scope::ScopeSet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
pub(crate) fn serialize<S: Serializer>(
    scopes: &ScopeSet,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    scopes.names().serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ScopeSet, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names
        .iter()
        .map(|name| name.parse().map_err(de::Error::custom))
        .collect()
}

/// The same where there may be no array at all: null.
pub(crate) mod optional {
    use super::{Deserialize, Deserializer, ScopeSet, Serialize, Serializer, de};

    #[allow(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands over references"
    )]
    pub(crate) fn serialize<S: Serializer>(
        scopes: &Option<ScopeSet>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        scopes.map(ScopeSet::names).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ScopeSet>, D::Error> {
        let Some(names) = Option::<Vec<String>>::deserialize(deserializer)? else {
            return Ok(None);
        };
        names
            .iter()
            .map(|name| name.parse().map_err(de::Error::custom))
            .collect::<Result<_, _>>()
            .map(Some)
    }
}
