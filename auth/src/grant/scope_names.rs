//! Scopes as JSON lists them: an array of names.

use kernel::scope::ScopeSet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
pub(super) fn serialize<S: Serializer>(
    scopes: &ScopeSet,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    scopes.names().serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ScopeSet, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names
        .iter()
        .map(|name| name.parse().map_err(de::Error::custom))
        .collect()
}
