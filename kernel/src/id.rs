//! Typed ids: a UUIDv7 (RFC 9562, section 5.7) that knows what it names.
//!
//! In memory and in PostgreSQL an id is a UUID. In every API it is `prefix_` and 26 characters of lower-case Crockford base32, such as
//! `prod_01jd3x5k8vfm7b2c9q0r4t6w8y`. An id of another kind does not parse, so a product's id can't be passed for an order's. Ids order
//! nothing: clocks differ between machines.

use std::{borrow::Cow, cmp::Ordering, fmt, hash, marker::PhantomData, str::FromStr};

use async_graphql::{InputType, InputValueError, InputValueResult, OutputType, Value};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::clock::Timestamp;

/// What an id can name. Implemented by the noun itself (`Product`), or by a marker where the noun lives in another crate.
pub trait Kind: 'static {
    /// The word before the underscore, unique among all kinds: `prod`.
    const PREFIX: &'static str;
}

/// The id of one `T`: 16 bytes, shown as `prefix_` and 26 characters.
pub struct Id<T: Kind>(Uuid, PhantomData<fn() -> T>);

/// Crockford's base32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters after the prefix: 130 bits, of which the topmost two are zero.
const ENCODED_LENGTH: usize = 26;

impl<T: Kind> Id<T> {
    /// A new id that carries `now` to the millisecond; the rest is random.
    pub fn new(now: Timestamp) -> Self {
        let millis = u64::try_from(now.unix_millis()).unwrap_or(0);
        let random: [u8; 10] = rand::random();
        Self::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The least id that something made at `time` may have; the greatest of all if no id is that late.
    pub fn least(time: Timestamp) -> Self {
        let millis = u128::try_from(time.unix_millis()).unwrap_or(0);
        Self::from_uuid(if millis >> 48 == 0 {
            Uuid::from_u128(millis << 80)
        } else {
            Uuid::max()
        })
    }

    /// When it was made, to the millisecond.
    pub fn made_at(self) -> Timestamp {
        Timestamp::from_unix_millis(i64::try_from(self.0.as_u128() >> 80).unwrap_or_default())
    }

    /// The id whose bytes are `uuid`.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }

    /// The bytes, as PostgreSQL keeps them.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl<T: Kind> fmt::Display for Id<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_u128();
        let mut text = [b'_'; 1 + ENCODED_LENGTH];
        for place in text.iter_mut().skip(1).rev() {
            let digit = usize::try_from(rest & 31).unwrap_or_default();
            *place = ALPHABET.get(digit).copied().unwrap_or(b'0');
            rest >>= 5;
        }
        formatter.write_str(T::PREFIX)?;
        formatter.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

/// Why a text is not an id of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be an id of the form {prefix}_ and 26 characters of lower-case base32")]
pub struct ParseIdError {
    /// The prefix that was expected.
    pub prefix: &'static str,
}

impl<T: Kind> FromStr for Id<T> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = ParseIdError { prefix: T::PREFIX };
        let encoded = text
            .strip_prefix(T::PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
            .filter(|encoded| encoded.len() == ENCODED_LENGTH)
            .ok_or_else(|| error.clone())?;
        let mut value: u128 = 0;
        for (place, character) in encoded.bytes().enumerate() {
            let digit = ALPHABET
                .iter()
                .position(|&letter| letter == character)
                .and_then(|digit| u128::try_from(digit).ok())
                .ok_or_else(|| error.clone())?;
            if place == 0 && digit > 7 {
                return Err(error);
            }
            value = (value << 5) | digit;
        }
        Ok(Self::from_uuid(Uuid::from_u128(value)))
    }
}

impl<T: Kind> Copy for Id<T> {}
impl<T: Kind> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Kind> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T: Kind> Eq for Id<T> {}
impl<T: Kind> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T: Kind> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}
impl<T: Kind> hash::Hash for Id<T> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<T: Kind> fmt::Debug for Id<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl<T: Kind> From<Uuid> for Id<T> {
    fn from(uuid: Uuid) -> Self {
        Self::from_uuid(uuid)
    }
}
impl<T: Kind> From<Id<T>> for Uuid {
    fn from(id: Id<T>) -> Self {
        id.0
    }
}

impl<T: Kind> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T: Kind> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl<T: Kind> sqlx::Type<sqlx::Postgres> for Id<T> {
    fn type_info() -> sqlx::postgres::PgTypeInfo {
        <Uuid as sqlx::Type<sqlx::Postgres>>::type_info()
    }
}

impl<T: Kind> sqlx::postgres::PgHasArrayType for Id<T> {
    fn array_type_info() -> sqlx::postgres::PgTypeInfo {
        <Uuid as sqlx::postgres::PgHasArrayType>::array_type_info()
    }
}

impl<'q, T: Kind> sqlx::Encode<'q, sqlx::Postgres> for Id<T> {
    fn encode_by_ref(
        &self,
        buffer: &mut sqlx::postgres::PgArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        <Uuid as sqlx::Encode<'q, sqlx::Postgres>>::encode_by_ref(&self.0, buffer)
    }
}

impl<'r, T: Kind> sqlx::Decode<'r, sqlx::Postgres> for Id<T> {
    fn decode(value: sqlx::postgres::PgValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
        <Uuid as sqlx::Decode<'r, sqlx::Postgres>>::decode(value).map(Self::from_uuid)
    }
}

impl<T: Kind> utoipa::PartialSchema for Id<T> {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some(format!(
                "^{}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$",
                T::PREFIX
            )))
            .examples([serde_json::Value::String(format!(
                "{}_01jd3x5k8vfm7b2c9q0r4t6w8y",
                T::PREFIX
            ))])
            .into()
    }
}

impl<T: Kind> utoipa::ToSchema for Id<T> {
    /// `ProductId`: a schema for each kind, where utoipa would take all of them for one `Id`.
    fn name() -> Cow<'static, str> {
        let kind = std::any::type_name::<T>();
        let kind = kind.rsplit_once("::").map_or(kind, |(_, kind)| kind);
        Cow::Owned(format!("{kind}Id"))
    }
}

impl<T: Kind> InputType for Id<T> {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("ID")
    }

    fn create_type_info(registry: &mut async_graphql::registry::Registry) -> String {
        <async_graphql::ID as InputType>::create_type_info(registry)
    }

    fn parse(value: Option<Value>) -> InputValueResult<Self> {
        match value.unwrap_or_default() {
            Value::String(text) => text.parse().map_err(InputValueError::custom),
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        Some(self)
    }
}

impl<T: Kind> OutputType for Id<T> {
    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("ID")
    }

    fn create_type_info(registry: &mut async_graphql::registry::Registry) -> String {
        <async_graphql::ID as OutputType>::create_type_info(registry)
    }

    async fn resolve(
        &self,
        _: &async_graphql::ContextSelectionSet<'_>,
        _: &async_graphql::Positioned<async_graphql::parser::types::Field>,
    ) -> async_graphql::ServerResult<Value> {
        Ok(Value::String(self.to_string()))
    }
}

/// Declares markers for kinds that several crates name but one of them owns, each with an alias of its id.
macro_rules! kinds {
    ($($(#[$documentation:meta])* $kind:ident, $alias:ident, $prefix:literal;)*) => {$(
        $(#[$documentation])*
        #[derive(Debug)]
        pub enum $kind {}
        impl Kind for $kind {
            const PREFIX: &'static str = $prefix;
        }
        #[doc = concat!("The id of a [`", stringify!($kind), "`]: `", $prefix, "_…`.")]
        pub type $alias = Id<$kind>;
    )*};
}

kinds! {
    /// A merchant: the tenant.
    Merchant, MerchantId, "mer";
    /// An app that acts for merchants.
    App, AppId, "app";
    /// What a merchant has granted to an app.
    Grant, GrantId, "grn";
    /// A place where stock lies.
    Location, LocationId, "loc";
    /// Something that happened, as receivers are told of it.
    Event, EventId, "evt";
    /// One request, as answers, logs, events and attempts name it.
    Request, RequestId, "req";
    /// Somebody who signs in: merchants' staff, operators, apps' developers.
    Person, PersonId, "per";
    /// An entry of the audit log.
    AuditEntry, AuditEntryId, "aud";
    /// Somebody whose personal data is kept, and can be erased.
    DataSubject, DataSubjectId, "cus";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_survives_its_text(value: u128) {
            let id = MerchantId::from_uuid(Uuid::from_u128(value));
            prop_assert_eq!(id.to_string().parse::<MerchantId>().unwrap(), id);
            prop_assert_eq!(id.to_string().len(), "mer_".len() + 26);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<MerchantId>();
        }
    }

    #[test]
    fn an_id_of_another_kind_does_not_parse() {
        let app = AppId::new(Timestamp::from_unix_millis(0)).to_string();
        assert!(app.parse::<MerchantId>().is_err());
        assert!(
            "mer_8zzzzzzzzzzzzzzzzzzzzzzzzz"
                .parse::<MerchantId>()
                .is_err(),
            "over 128 bits"
        );
        assert!(
            "mer_7zzzzzzzzzzzzzzzzzzzzzzzzz"
                .parse::<MerchantId>()
                .is_ok()
        );
        assert!(
            "mer_7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
                .parse::<MerchantId>()
                .is_err(),
            "one spelling only"
        );
    }
}
