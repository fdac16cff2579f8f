//! Throttles.
