//! Tokens whose signature has been verified, by their hash: a token is used many times in its ten minutes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use kernel::clock::Timestamp;
use sha2::{Digest, Sha256};

use super::Verified;

/// Tokens that are remembered, of about a kilobyte each. When they are too many, the expired ones are forgotten, or else all.
const REMEMBERED_MAX: usize = 10_000;

/// SHA-256: the tokens themselves are not kept.
type TokenHash = [u8; 32];

#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<HashMap<TokenHash, Arc<Verified>>>);

impl Remembered {
    pub(super) fn find(&self, token: &str) -> Option<Arc<Verified>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&hash(token))
            .cloned()
    }

    pub(super) fn insert(&self, token: &str, verified: Arc<Verified>, now: Timestamp) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= REMEMBERED_MAX {
            tokens.retain(|_, verified| verified.claims.exp > now.unix_seconds());
        }
        if tokens.len() >= REMEMBERED_MAX {
            tokens.clear();
        }
        tokens.insert(hash(token), verified);
    }
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use kernel::id::{AppId, GrantId, MerchantId};
    use uuid::Uuid;

    use super::*;
    use crate::token::Claims;

    fn verified(exp: i64) -> Arc<Verified> {
        let app = AppId::from_uuid(Uuid::nil());
        let claims = Claims {
            iss: String::new(),
            sub: app.to_string(),
            aud: String::new(),
            client_id: app,
            iat: 0,
            exp,
            nbf: None,
            jti: String::new(),
            scope: String::new(),
            grant: GrantId::from_uuid(Uuid::nil()),
            epoch: 1,
            locations: None,
            personal_data: false,
        };
        let merchant = MerchantId::from_uuid(Uuid::nil());
        Arc::new(Verified {
            kid: String::new(),
            merchant,
            scopes: claims.scope.parse().unwrap_or_default(),
            claims,
        })
    }

    fn count(remembered: &Remembered) -> usize {
        remembered
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_expired_go_first() {
        let (remembered, now) = (
            Remembered::default(),
            Timestamp::from_unix_millis(1_000_000),
        );
        let (expired, living) = (verified(1_000), verified(1_001));
        remembered.insert("living", Arc::clone(&living), now);
        for place in 1..REMEMBERED_MAX {
            remembered.insert(&place.to_string(), Arc::clone(&expired), now);
        }
        assert_eq!(count(&remembered), REMEMBERED_MAX);
        remembered.insert("one more", Arc::clone(&living), now);
        assert_eq!(count(&remembered), 2);
        assert!(
            remembered
                .find("living")
                .is_some_and(|found| Arc::ptr_eq(&found, &living))
        );
        assert!(remembered.find("1").is_none());
        for place in 0..2 * REMEMBERED_MAX {
            remembered.insert(&place.to_string(), Arc::clone(&living), now);
            assert!(count(&remembered) <= REMEMBERED_MAX);
        }
    }
}
