//! Money: an integer of minor units and an ISO 4217 currency.
//!
//! Shown as `{"amount": "12.34", "currency": "EUR"}`, the amount with exactly as many decimals as the currency has. Arithmetic is checked
//! and refuses to mix currencies. Nothing here is ever a float.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

/// A currency of ISO 4217, such as `EUR` (two decimals), `JPY` (none) or `BHD` (three).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency(iso_currency::Currency);

/// Why a text is not a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an ISO 4217 currency code, such as EUR")]
pub struct ParseCurrencyError;

impl Currency {
    /// The three letters.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// How many decimals an amount has: 2 for EUR, 0 for JPY.
    pub fn decimals(self) -> u32 {
        self.0.exponent().map_or(0, u32::from)
    }

    /// How many minor units make a major one: 100 for EUR, 1 for JPY.
    pub fn minor_per_major(self) -> i64 {
        10_i64.pow(self.decimals().min(4))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

impl FromStr for Currency {
    type Err = ParseCurrencyError;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        iso_currency::Currency::from_code(code)
            .map(Self)
            .ok_or(ParseCurrencyError)
    }
}

/// An amount of a currency, in its minor units; may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

/// Why an amount can't be read, or two can't be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number without exponent.
    #[error("amount must be a decimal number such as \"12.34\"")]
    NotANumber,
    /// More decimals than the currency has.
    #[error("amount has more decimals than {currency} has ({decimals})")]
    TooManyDecimals {
        /// The currency.
        currency: Currency,
        /// How many decimals it has.
        decimals: u32,
    },
    /// Beyond what 64 bits of minor units hold.
    #[error("amount is too large")]
    TooLarge,
    /// Two currencies in one sum.
    #[error("amounts of {0} and {1} can't be put together")]
    Currencies(Currency, Currency),
    /// Not a currency.
    #[error("currency {0}")]
    Currency(#[from] ParseCurrencyError),
}

/// Digits that an amount may have before and after its point; more can't fit 64 bits.
const AMOUNT_DIGITS_MAX: usize = 20;

impl Money {
    /// `minor` minor units of `currency`: `(1234, EUR)` is 12.34 EUR.
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// Nothing, in `currency`.
    pub const fn zero(currency: Currency) -> Self {
        Self::new(0, currency)
    }

    /// Reads `12.34`, `-0.5`, `12`; fewer decimals than the currency has are filled with zeros, more are refused unless they are zeros.
    pub fn parse(amount: &str, currency: Currency) -> Result<Self, MoneyError> {
        let (negative, digits) = match amount.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, amount),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let well_formed = !whole.is_empty()
            && (digits.len() == whole.len() || !fraction.is_empty())
            && whole
                .bytes()
                .chain(fraction.bytes())
                .all(|byte| byte.is_ascii_digit());
        if !well_formed {
            return Err(MoneyError::NotANumber);
        }
        if whole.len() > AMOUNT_DIGITS_MAX || fraction.len() > AMOUNT_DIGITS_MAX {
            return Err(MoneyError::TooLarge);
        }
        let decimals = currency.decimals();
        let kept = fraction.trim_end_matches('0');
        let missing = usize::try_from(decimals)
            .unwrap_or_default()
            .checked_sub(kept.len())
            .ok_or(MoneyError::TooManyDecimals { currency, decimals })?;
        let sign = if negative { "-" } else { "" };
        let text = format!("{sign}{whole}{kept}{}", "0".repeat(missing));
        let minor = text
            .parse()
            .map_err(|_overflow: std::num::ParseIntError| MoneyError::TooLarge)?;
        Ok(Self { minor, currency })
    }

    /// The minor units.
    pub const fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The amount with the currency's decimals, without its code: `12.34`.
    pub fn amount(self) -> String {
        let decimals = usize::try_from(self.currency.decimals()).unwrap_or_default();
        let digits = format!(
            "{:0>width$}",
            self.minor.unsigned_abs(),
            width = decimals + 1
        );
        let sign = if self.minor < 0 { "-" } else { "" };
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        if fraction.is_empty() {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{fraction}")
        }
    }

    /// The sum of two amounts of one currency.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Currencies(self.currency, other.currency));
        }
        let minor = self
            .minor
            .checked_add(other.minor)
            .ok_or(MoneyError::TooLarge)?;
        Ok(Self { minor, ..self })
    }

    /// `quantity` times this.
    pub fn checked_mul(self, quantity: i64) -> Result<Self, MoneyError> {
        let minor = self
            .minor
            .checked_mul(quantity)
            .ok_or(MoneyError::TooLarge)?;
        Ok(Self { minor, ..self })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.amount(), self.currency)
    }
}

/// How money looks in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    amount: String,
    currency: String,
}

impl Serialize for Money {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shape {
            amount: self.amount(),
            currency: self.currency.code().to_owned(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shape = Shape::deserialize(deserializer)?;
        let currency = shape
            .currency
            .parse::<Currency>()
            .map_err(de::Error::custom)?;
        Self::parse(&shape.amount, currency).map_err(de::Error::custom)
    }
}

impl utoipa::PartialSchema for Money {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, Type};
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some(
                "An amount with exactly as many decimals as its ISO 4217 currency has.",
            ))
            .property(
                "amount",
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some(r"^-?\d+(\.\d+)?$")),
            )
            .required("amount")
            .property(
                "currency",
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some("^[A-Z]{3}$")),
            )
            .required("currency")
            .additional_properties(Some(
                utoipa::openapi::schema::AdditionalProperties::FreeForm(false),
            ))
            .examples([serde_json::json!({"amount": "12.34", "currency": "EUR"})])
            .into()
    }
}

impl utoipa::ToSchema for Money {}

/// An amount of money: `amount` with exactly as many decimals as its ISO 4217 `currency` has.
#[async_graphql::Object(name = "Money")]
impl Money {
    /// The amount as a decimal number, such as `12.34`.
    #[graphql(name = "amount")]
    async fn graphql_amount(&self) -> String {
        self.amount()
    }

    /// The ISO 4217 code, such as `EUR`.
    #[graphql(name = "currency")]
    async fn graphql_currency(&self) -> &'static str {
        self.currency.code()
    }
}

/// An amount of money: `amount` as a decimal number, `currency` as an ISO 4217 code.
#[derive(async_graphql::InputObject)]
struct MoneyInput {
    /// The amount as a decimal number, such as `12.34`.
    amount: String,
    /// The ISO 4217 code, such as `EUR`.
    currency: String,
}

impl async_graphql::InputType for Money {
    type RawValueType = Self;

    fn type_name() -> std::borrow::Cow<'static, str> {
        <MoneyInput as async_graphql::InputType>::type_name()
    }

    fn create_type_info(registry: &mut async_graphql::registry::Registry) -> String {
        <MoneyInput as async_graphql::InputType>::create_type_info(registry)
    }

    fn parse(value: Option<async_graphql::Value>) -> async_graphql::InputValueResult<Self> {
        let input = <MoneyInput as async_graphql::InputType>::parse(value)
            .map_err(async_graphql::InputValueError::propagate)?;
        let currency = input.currency.parse::<Currency>().map_err(MoneyError::from);
        currency
            .and_then(|currency| Self::parse(&input.amount, currency))
            .map_err(async_graphql::InputValueError::custom)
    }

    fn to_value(&self) -> async_graphql::Value {
        let input = MoneyInput {
            amount: self.amount(),
            currency: self.currency.code().to_owned(),
        };
        async_graphql::InputType::to_value(&input)
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_have_the_decimals_of_their_currency() {
        for (amount, code, minor, shown) in [
            ("12.34", "EUR", 1234, "12.34"),
            ("12.3", "EUR", 1230, "12.30"),
            ("-0.05", "EUR", -5, "-0.05"),
            ("500", "JPY", 500, "500"),
            ("500.00", "JPY", 500, "500"),
            ("1.5", "BHD", 1500, "1.500"),
            ("987000", "VND", 987_000, "987000"),
        ] {
            let money = Money::parse(amount, code.parse().unwrap()).unwrap();
            assert_eq!(
                (money.minor(), money.amount().as_str()),
                (minor, shown),
                "{amount} {code}"
            );
        }
    }

    #[test]
    fn what_is_not_an_amount_is_refused() {
        let eur: Currency = "EUR".parse().unwrap();
        for text in [
            "",
            "-",
            ".5",
            "5.",
            "1e3",
            "1,5",
            " 1",
            "+1",
            "1.234",
            "99999999999999999999",
            "٣",
        ] {
            assert!(Money::parse(text, eur).is_err(), "{text}");
        }
        assert!("eur".parse::<Currency>().is_err());
        assert!(serde_json::from_str::<Money>(r#"{"amount":"1","currency":"EUR","x":1}"#).is_err());
    }

    proptest! {
        #[test]
        fn money_survives_its_json(minor: i64, code in prop::sample::select(vec!["EUR", "JPY", "BHD"])) {
            let money = Money::new(minor, code.parse().unwrap());
            let json = serde_json::to_string(&money).unwrap();
            prop_assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), money);
        }
    }
}
