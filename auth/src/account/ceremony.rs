//! Proofs in several steps.

use crate::client::secret::Secret;

/// What names a ceremony to the browser that has begun it: for a cookie. Prints as `***`.
#[derive(Debug, Clone)]
pub struct CeremonyToken(Secret);

impl CeremonyToken {
    /// A token that a browser shows.
    pub fn new(text: String) -> Self {
        Self(Secret::new(text))
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}
