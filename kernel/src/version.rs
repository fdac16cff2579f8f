//! Versions: how often a resource has changed, which orders its events and makes its `ETag`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A resource's version: 1 when it is made, one more with each change.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct Version(i64);

impl Version {
    /// The version of what has just been made.
    pub const FIRST: Self = Self(1);

    /// The version `number`, as the database or an `If-Match` has it.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The version that one more change makes.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl From<Version> for i64 {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl utoipa::PartialSchema for Version {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(1))
            .examples([serde_json::Value::from(1)])
            .into()
    }
}

impl utoipa::ToSchema for Version {}

/// A resource's version: 1 when it is made, one more with each change. A number of up to 64 bits.
#[async_graphql::Scalar(name = "Version")]
impl async_graphql::ScalarType for Version {
    fn parse(value: async_graphql::Value) -> async_graphql::InputValueResult<Self> {
        match &value {
            async_graphql::Value::Number(number) => number
                .as_i64()
                .filter(|&number| number > 0)
                .map(Self)
                .ok_or_else(|| {
                    async_graphql::InputValueError::custom("must be a positive whole number")
                }),
            _ => Err(async_graphql::InputValueError::expected_type(value)),
        }
    }

    // Validation asks this: what can't be read is found before anything is executed, and mutations beside it are committed.
    fn is_valid(value: &async_graphql::Value) -> bool {
        <Self as async_graphql::ScalarType>::parse(value.clone()).is_ok()
    }

    fn to_value(&self) -> async_graphql::Value {
        async_graphql::Value::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::{ScalarType, Value};

    use super::*;

    #[test]
    fn only_positive_whole_numbers_are_versions_in_graphql() {
        for valid in [1, 7, i64::MAX] {
            assert!(Version::is_valid(&Value::from(valid)), "{valid}");
        }
        for invalid in [
            Value::from(0),
            Value::from(-1),
            Value::from(u64::MAX),
            Value::from(1.5),
            Value::from("1"),
            Value::Null,
            Value::List(vec![Value::from(1)]),
        ] {
            assert!(!Version::is_valid(&invalid), "{invalid}");
        }
    }
}
