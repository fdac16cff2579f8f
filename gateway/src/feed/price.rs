//! Prices of feeds: `987000 VND`, `379.00 INR`, `EUR 1,299.00`.
//!
//! A price is readable if it can be read in one way only. A comma is such a case where it must separate thousands: if a point follows it or there are
//! several (`1,299.00`, `1,00,000`). `1,299` may be one thousand or little more than one, so it is not read.

use kernel::money::{Currency, Money};
use serde::Serialize;

/// A price as a feed gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Price {
    /// What it is.
    Readable(Money),
    /// What can't be read, in the form of a price: the server says what is wrong with it.
    Unreadable(AsGiven),
}

/// A price as a feed gives it, taken apart as far as it can be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct AsGiven {
    amount: String,
    currency: String,
}

impl Price {
    /// The price, if it can be read.
    pub(super) const fn money(&self) -> Option<Money> {
        match self {
            Self::Readable(money) => Some(*money),
            Self::Unreadable(_) => None,
        }
    }
}

impl Serialize for Price {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Readable(money) => money.serialize(serializer),
            Self::Unreadable(given) => given.serialize(serializer),
        }
    }
}

/// Reads a price; blank is none.
pub(super) fn read(text: &str) -> Option<Price> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let (amount, currency) = currency_apart(text);
    let money = currency
        .parse::<Currency>()
        .ok()
        .and_then(|currency| Money::parse(&plain_amount(amount)?, currency).ok());
    Some(money.map_or_else(
        || {
            Price::Unreadable(AsGiven {
                amount: amount.to_owned(),
                currency,
            })
        },
        Price::Readable,
    ))
}

/// The amount and the code, which may come first or last, with a space or without.
fn currency_apart(text: &str) -> (&str, String) {
    let last = text
        .char_indices()
        .rev()
        .nth(2)
        .map_or(0, |(place, _)| place);
    let first = text
        .char_indices()
        .nth(3)
        .map_or(text.len(), |(place, _)| place);
    let (before, code_last) = text.split_at(last);
    let (code_first, after) = text.split_at(first);
    if is_code(code_last) && !before.ends_with(|character: char| character.is_alphabetic()) {
        (before.trim_end(), code_last.to_ascii_uppercase())
    } else if is_code(code_first) && !after.starts_with(|character: char| character.is_alphabetic())
    {
        (after.trim_start(), code_first.to_ascii_uppercase())
    } else {
        (text, String::new())
    }
}

fn is_code(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// The amount without commas, if each of them must separate thousands (or, as in India, hundreds of them).
fn plain_amount(amount: &str) -> Option<String> {
    let (whole, fraction) = amount
        .split_once('.')
        .map_or((amount, None), |(whole, fraction)| (whole, Some(fraction)));
    let commas = whole.matches(',').count();
    if commas == 0 {
        return Some(amount.to_owned());
    }
    let groups: Vec<_> = whole.split(',').collect();
    let (last, others) = groups.split_last()?;
    let (first, middle) = others.split_first()?;
    let grouped = last.len() == 3
        && (1..=3).contains(&first.len())
        && (middle.iter().all(|group| group.len() == 3)
            || (first.len() < 3 && middle.iter().all(|group| group.len() == 2)))
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_digit()));
    let only_one_way = fraction.is_some_and(|fraction| !fraction.is_empty()) || commas > 1;
    (grouped && only_one_way).then(|| amount.replace(',', ""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_can_be_read_in_one_way_is_read() {
        for (text, minor, code) in [
            ("987000 VND", 987_000, "VND"),
            ("379.00 VND", 379, "VND"),
            ("379.00 INR", 37_900, "INR"),
            ("379 INR", 37_900, "INR"),
            ("  379 INR ", 37_900, "INR"),
            ("379\u{a0}INR", 37_900, "INR"),
            ("379INR", 37_900, "INR"),
            ("379.5 inr", 37_950, "INR"),
            ("INR 379", 37_900, "INR"),
            ("EUR1,299.00", 129_900, "EUR"),
            ("1,299.00 EUR", 129_900, "EUR"),
            ("1,234,567 EUR", 123_456_700, "EUR"),
            ("1,00,000 INR", 10_000_000, "INR"),
            ("1,00,000.50 INR", 10_000_050, "INR"),
            ("0 EUR", 0, "EUR"),
            ("12.3400 EUR", 1_234, "EUR"),
            ("-5 EUR", -500, "EUR"),
        ] {
            assert_eq!(
                read(text),
                Some(Price::Readable(Money::new(minor, code.parse().unwrap()))),
                "{text}"
            );
        }
    }

    #[test]
    fn what_can_not_is_handed_on_as_given() {
        for (text, amount, currency) in [
            ("abc", "", "ABC"),
            ("12.345 EUR", "12.345", "EUR"),
            ("1,299 EUR", "1,299", "EUR"),
            ("12,34 EUR", "12,34", "EUR"),
            ("1.299,00 EUR", "1.299,00", "EUR"),
            ("1.299.000 VND", "1.299.000", "VND"),
            ("1,2999.00 EUR", "1,2999.00", "EUR"),
            ("12,34,56 EUR", "12,34,56", "EUR"),
            ("1,23,4567 INR", "1,23,4567", "INR"),
            ("1 299 EUR", "1 299", "EUR"),
            (",299.00 EUR", ",299.00", "EUR"),
            ("12 XQQ", "12", "XQQ"),
            ("12", "12", ""),
            ("$12", "$12", ""),
            ("12 €", "12 €", ""),
            ("EUR", "", "EUR"),
            ("12 euros", "12 euros", ""),
            ("99999999999999999999 EUR", "99999999999999999999", "EUR"),
            ("1e3 EUR", "1e3", "EUR"),
        ] {
            let given = AsGiven {
                amount: amount.to_owned(),
                currency: currency.to_owned(),
            };
            assert_eq!(read(text), Some(Price::Unreadable(given)), "{text}");
        }
        assert_eq!(read(" \u{a0}"), None);
    }
}
