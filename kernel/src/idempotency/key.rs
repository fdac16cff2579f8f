//! Keys, as clients name their changes.

use std::{fmt, str::FromStr};

use crate::problem::{self, Problem};

/// A client's name for one change: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

/// A text that can't be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 visible ASCII characters")]
pub struct InvalidKey;

impl From<InvalidKey> for Problem {
    fn from(error: InvalidKey) -> Self {
        Self::new(
            &problem::IDEMPOTENCY_KEY_REQUIRED,
            format!("The idempotency key {error}."),
        )
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    /// Reads a key bare, or in quotes as the HTTP working group's draft has it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(text);
        let legal =
            (1..=255).contains(&bare.len()) && bare.bytes().all(|byte| byte.is_ascii_graphic());
        if legal {
            Ok(Self(bare.to_owned()))
        } else {
            Err(InvalidKey)
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Key {
    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
