//! Recovery codes: for who has lost the authenticator. Random, written down by the person, each good once; only hashes are kept.

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    id::PersonId,
};
use serde_json::json;
use sqlx::PgConnection;

use super::{Accounts, Session, sign_in::commit, token};
use crate::{Error, client::secret::Secret};

pub(super) mod store;

/// Codes that are made at a time.
const COUNT: usize = 10;

/// Bytes of a code: 80 bits are nothing to guess, and sixteen characters are still written down without a fault.
const LENGTH: usize = 10;

/// Characters between two dashes.
const GROUP_LENGTH: usize = 4;

/// A code for who has lost their authenticator: 80 random bits, `ABCD-EFGH-IJKL-MNOP`, good once. Prints as `***`.
#[derive(Debug, Clone)]
pub struct RecoveryCode(Secret);

impl RecoveryCode {
    /// A random one, in base32 (RFC 4648, section 6).
    fn generate() -> Self {
        let secret = totp_rs::Secret::from(rand::random::<[u8; LENGTH]>());
        let characters: Vec<char> = secret.to_base32().chars().collect();
        let groups: Vec<String> = characters
            .chunks(GROUP_LENGTH)
            .map(|group| group.iter().collect())
            .collect();
        Self(Secret::new(groups.join("-")))
    }

    /// The code, as the person writes it down.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// What is kept of a code, however it is typed.
fn hash(code: &str) -> token::Hash {
    let plain: String = code
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|character| character.to_ascii_uppercase())
        .collect();
    token::hash(&plain)
}

/// Makes new codes in place of all old ones, and tells so.
pub(super) async fn replace(
    tx: &mut PgConnection,
    person: PersonId,
    caller: &Caller,
    now: Timestamp,
) -> Result<Vec<RecoveryCode>, Error> {
    let codes: Vec<RecoveryCode> = (0..COUNT).map(|_| RecoveryCode::generate()).collect();
    let hashes: Vec<Vec<u8>> = codes
        .iter()
        .map(|code| hash(code.expose()).to_vec())
        .collect();
    store::delete(tx, person).await?;
    store::insert(tx, person, &hashes, now).await?;
    let entry = NewEntry::succeeded("recovery_codes.made")
        .by_person(person)
        .to("person", person);
    audit::record(tx, Log::Installation, caller, now, &entry).await?;
    Ok(codes)
}

/// Uses a code up, and tells so; false if it is none, or was used.
pub(super) async fn redeem(
    tx: &mut PgConnection,
    person: PersonId,
    code: &str,
    caller: &Caller,
    now: Timestamp,
) -> Result<bool, Error> {
    let Some(left) = store::redeem(tx, person, &hash(code), now).await? else {
        return Ok(false);
    };
    let entry = NewEntry::succeeded("recovery_code.used")
        .by_person(person)
        .to("person", person)
        .with(json!({ "left": left }));
    audit::record(tx, Log::Installation, caller, now, &entry).await?;
    Ok(true)
}

impl Accounts {
    /// Ten new recovery codes in place of the old ones, shown this once. Needs a recent proof, and time-based codes that they stand in for.
    pub async fn make_recovery_codes(
        &self,
        caller: &Caller,
        session: &Session,
    ) -> Result<Vec<RecoveryCode>, Error> {
        let now = self.clock.now();
        session.require_recent_proof(now)?;
        if !session.person.has_totp {
            return Err(Error::Forbidden(
                "Recovery codes stand in for codes by an app, which are off.",
            ));
        }
        let mut tx = self.database.begin().await?;
        let codes = replace(&mut tx, session.person.id, caller, now).await?;
        commit(tx).await?;
        Ok(codes)
    }

    /// How many recovery codes are left.
    pub async fn recovery_codes_left(&self, session: &Session) -> Result<i64, Error> {
        let mut tx = self.database.begin().await?;
        Ok(store::count_left(&mut tx, session.person.id).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_four_groups_and_may_be_typed_in_any_case() {
        let code = RecoveryCode::generate();
        assert_eq!(code.expose().len(), 19);
        assert_eq!(
            code.expose().split('-').map(str::len).collect::<Vec<_>>(),
            [4; 4]
        );
        assert_eq!(
            hash(code.expose()),
            hash(&code.expose().to_lowercase().replace('-', " "))
        );
        assert_ne!(RecoveryCode::generate().expose(), code.expose());
        assert_eq!(format!("{code:?}"), "RecoveryCode(***)");
    }
}
