//! Passwords.

/// Hashes passwords off the async threads.
#[derive(Debug, Default)]
pub struct Hasher;
