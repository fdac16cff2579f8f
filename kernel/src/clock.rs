//! Time: the one place that reads the clock, and the instant that everything else is given.
//!
//! The domain takes `now: Timestamp` as an argument. The edge asks its [`Clock`] once for a request; tests hold a clock that they move.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant in UTC, to the microsecond (what PostgreSQL keeps), shown as RFC 3339 with `Z`.
///
/// Microseconds since 1970-01-01T00:00:00Z, between [`FIRST`] and [`LAST`]: instants are compared and reckoned with far more often than they are shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The first and the last instant that there are: a quarter of a million years from now, either way.
const FIRST: i64 = DateTime::<Utc>::MIN_UTC.timestamp_micros();
const LAST: i64 = DateTime::<Utc>::MAX_UTC.timestamp_micros();

impl Timestamp {
    /// The instant `millis` milliseconds after 1970-01-01T00:00:00Z; out of range is the epoch itself.
    pub const fn from_unix_millis(millis: i64) -> Self {
        Self::from_unix_micros(millis.saturating_mul(1_000))
    }

    /// The instant `micros` microseconds after 1970-01-01T00:00:00Z; out of range is the epoch itself.
    pub const fn from_unix_micros(micros: i64) -> Self {
        match micros {
            FIRST..=LAST => Self(micros),
            _ => Self(0),
        }
    }

    /// Milliseconds since the epoch.
    pub const fn unix_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Microseconds since the epoch.
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, as JWT (RFC 7519) and Standard Webhooks count.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The instant `duration` later, or the last one there is.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)).min(LAST))
    }

    /// The instant `duration` earlier, or the first one there is.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)).max(FIRST))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(value: DateTime<Utc>) -> Self {
        Self(value.timestamp_micros())
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(value: Timestamp) -> Self {
        Self::from_timestamp_micros(value.0).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = DateTime::<Utc>::from(*self).to_rfc3339_opts(SecondsFormat::AutoSi, true);
        formatter.write_str(&shown)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Timestamp {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        DateTime::parse_from_rfc3339(text).map(|instant| instant.to_utc().into())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_cause| {
            de::Error::custom("must be a time as in RFC 3339, such as 2026-11-01T12:00:00Z")
        })
    }
}

impl sqlx::Type<sqlx::Postgres> for Timestamp {
    fn type_info() -> sqlx::postgres::PgTypeInfo {
        <DateTime<Utc> as sqlx::Type<sqlx::Postgres>>::type_info()
    }
}

impl sqlx::postgres::PgHasArrayType for Timestamp {
    fn array_type_info() -> sqlx::postgres::PgTypeInfo {
        <DateTime<Utc> as sqlx::postgres::PgHasArrayType>::array_type_info()
    }
}

impl<'q> sqlx::Encode<'q, sqlx::Postgres> for Timestamp {
    fn encode_by_ref(
        &self,
        buffer: &mut sqlx::postgres::PgArgumentBuffer,
    ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
        <DateTime<Utc> as sqlx::Encode<'q, sqlx::Postgres>>::encode_by_ref(&(*self).into(), buffer)
    }
}

impl<'r> sqlx::Decode<'r, sqlx::Postgres> for Timestamp {
    fn decode(value: sqlx::postgres::PgValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
        <DateTime<Utc> as sqlx::Decode<'r, sqlx::Postgres>>::decode(value).map(Self::from)
    }
}

impl utoipa::PartialSchema for Timestamp {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .examples([serde_json::Value::String("2026-11-01T12:00:00Z".to_owned())])
            .into()
    }
}

impl utoipa::ToSchema for Timestamp {}

/// An instant as RFC 3339 in UTC, such as `2026-11-01T12:00:00Z`.
#[async_graphql::Scalar(name = "DateTime")]
impl async_graphql::ScalarType for Timestamp {
    fn parse(value: async_graphql::Value) -> async_graphql::InputValueResult<Self> {
        match value {
            async_graphql::Value::String(text) => {
                text.parse().map_err(async_graphql::InputValueError::custom)
            }
            other => Err(async_graphql::InputValueError::expected_type(other)),
        }
    }

    // Validation asks this: what can't be read is found before anything is executed, and mutations beside it are committed.
    fn is_valid(value: &async_graphql::Value) -> bool {
        matches!(value, async_graphql::Value::String(text) if text.parse::<Self>().is_ok())
    }

    fn to_value(&self) -> async_graphql::Value {
        async_graphql::Value::String(self.to_string())
    }
}

/// Where the present comes from: the system, or a test's hand.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until it is moved; clones share their time.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(
            start.unix_micros(),
        ))))
    }

    /// The present.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the system's clock"
    )]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
                Timestamp(since_epoch.map_or(0, micros))
            }
            Source::Manual(micros) => Timestamp::from_unix_micros(micros.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock forward; the system's clock stays what it is.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(micros(by), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_timestamp_is_shown_in_utc_with_z() {
        let instant: Timestamp = "2026-11-01T13:30:00.25+01:00".parse().unwrap();
        assert_eq!(instant.to_string(), "2026-11-01T12:30:00.250Z");
        assert_eq!(
            serde_json::to_string(&instant).unwrap(),
            "\"2026-11-01T12:30:00.250Z\""
        );
    }

    #[test]
    fn only_times_are_times_in_graphql() {
        use async_graphql::{ScalarType, Value};
        for valid in ["2026-11-01T12:00:00Z", "2026-11-01T13:30:00.25+01:00"] {
            assert!(Timestamp::is_valid(&Value::from(valid)), "{valid}");
        }
        for invalid in [
            Value::from("x"),
            Value::from(""),
            Value::from("2026-02-30T00:00:00Z"),
            Value::from(1_800_000_000),
            Value::Null,
        ] {
            assert!(!Timestamp::is_valid(&invalid), "{invalid}");
        }
    }

    #[test]
    fn time_ends_at_its_last_instant_and_does_not_start_again() {
        let now = Timestamp::from_unix_millis(1_000);
        assert!(now.plus(Duration::MAX) > now.plus(Duration::from_hours(24 * 365_000)));
        assert!(now.minus(Duration::MAX) < now.minus(Duration::from_hours(24 * 365_000)));
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Timestamp::from_unix_millis(1_000));
        let twin = clock.clone();
        clock.advance(Duration::from_secs(2));
        assert_eq!(twin.now(), Timestamp::from_unix_millis(3_000));
    }
}
