//! Takes personal data out of what a receiver has answered.

use std::fmt::Write;

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;

/// What stands where something was taken out.
pub const MASK: &str = "***";

/// Characters that a value must have to be looked for: shorter ones, such as a country's code, are found in anything.
const VALUE_LENGTH_MIN: usize = 4;

/// Values of one personal part that are looked for at most: several times those of an order with all of its addresses.
const VALUES_MAX: usize = 500;

/// Replaces by `***` each value of `personal` that `excerpt` shows: a receiver may echo what it was sent, and what it answers is kept and shown.
///
/// Looked for are the texts of 4 characters and more among the values, without regard to the case of ASCII letters (e-mail addresses are spelled as
/// people like), as they are and as JSON may spell them; and, because an excerpt is cut, the beginnings of values at its very end. Values that overlap
/// are taken out together. Takes time linear in the lengths of `excerpt` and `personal`.
///
/// Called by the worker before an answer's excerpt is recorded, with the opened personal part of the event that was sent.
pub fn mask(excerpt: &str, personal: &Value) -> String {
    let mut values = Vec::new();
    gather(personal, &mut values);
    let mut spellings: Vec<String> = values.iter().flat_map(|value| spellings(value)).collect();
    spellings.sort_unstable();
    spellings.dedup();
    if spellings.is_empty() || excerpt.is_empty() {
        return excerpt.to_owned();
    }
    let Ok(searcher) = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .build(&spellings)
    else {
        // More than an automaton holds, which the limits above keep from happening: then nothing is shown.
        return MASK.to_owned();
    };
    let mut found: Vec<(usize, usize)> = searcher
        .find_overlapping_iter(excerpt)
        .map(|found| (found.start(), found.end()))
        .collect();
    let cut = spellings
        .iter()
        .map(|spelling| cut_at_end(excerpt, spelling))
        .max()
        .unwrap_or(0);
    if cut > 0 {
        found.push((excerpt.len().saturating_sub(cut), excerpt.len()));
    }
    found.sort_unstable();
    without(excerpt, &found)
}

/// The texts of a value that are worth looking for.
fn gather<'v>(value: &'v Value, into: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => {
            let text = text.trim();
            if into.len() < VALUES_MAX && text.chars().count() >= VALUE_LENGTH_MIN {
                into.push(text);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| gather(value, into)),
        Value::Object(members) => members.values().for_each(|value| gather(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text as it is, as our JSON spells it, with slashes escaped, and with all that is not ASCII escaped.
fn spellings(text: &str) -> [String; 4] {
    let json = Value::from(text).to_string();
    let json = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(&json)
        .to_owned();
    let slashes = json.replace('/', "\\/");
    let mut ascii = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                // Writing to a text can't fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    [text.to_owned(), json, slashes, ascii]
}

/// Bytes at the end of `text` that are a beginning of `value`, of [`VALUE_LENGTH_MIN`] characters and more but not the whole: by the borders of Knuth,
/// Morris and Pratt, so that a value full of repetitions takes no longer.
fn cut_at_end(text: &str, value: &str) -> usize {
    let value: Vec<u8> = value
        .bytes()
        .map(|byte| byte.to_ascii_lowercase())
        .collect();
    let mut borders = vec![0_usize; value.len()];
    let mut length = 0;
    for place in 1..value.len() {
        length = follow(&value, &borders, length, value.get(place).copied());
        if let Some(border) = borders.get_mut(place) {
            *border = length;
        }
    }
    let mut matched = 0;
    let skipped = text.len().saturating_sub(value.len());
    for byte in text.bytes().skip(skipped) {
        if matched == value.len() {
            matched = matched
                .checked_sub(1)
                .and_then(|last| borders.get(last).copied())
                .unwrap_or(0);
        }
        matched = follow(&value, &borders, matched, Some(byte.to_ascii_lowercase()));
    }
    let characters = text
        .get(text.len().saturating_sub(matched)..)
        .map_or(0, |end| end.chars().count());
    if matched < value.len() && characters >= VALUE_LENGTH_MIN {
        matched
    } else {
        0
    }
}

/// How much of `value` matches after `next`, where `matched` bytes of it did before.
fn follow(value: &[u8], borders: &[usize], mut matched: usize, next: Option<u8>) -> usize {
    loop {
        if value.get(matched).copied() == next {
            return matched.saturating_add(1);
        }
        let Some(last) = matched.checked_sub(1) else {
            return 0;
        };
        matched = borders.get(last).copied().unwrap_or(0);
    }
}

/// `text` with each run of the sorted, perhaps overlapping `places` replaced.
fn without(text: &str, places: &[(usize, usize)]) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut shown_until = 0;
    let mut places = places.iter().copied().peekable();
    while let Some((start, mut end)) = places.next() {
        while let Some((_, next_end)) = places.next_if(|(next, _)| *next < end) {
            end = end.max(next_end);
        }
        masked.push_str(text.get(shown_until..start).unwrap_or_default());
        masked.push_str(MASK);
        shown_until = end;
    }
    masked.push_str(text.get(shown_until..).unwrap_or_default());
    masked
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_answer_echoes_of_a_customer_is_taken_out() {
        let personal = json!({
            "customer": {"email": "Ada@Example.com", "name": "Ada Lovelace", "phone": "+49 30 901820"},
            "shippingAddress": {"line1": "Unter den Linden 77", "city": "Köln", "country": "DE", "extra": ["c/o Müller \"GmbH\""]},
        });
        for (answer, expected) in [
            ("thanks", "thanks"),
            ("", ""),
            ("no such customer ada@example.COM!", "no such customer ***!"),
            ("hello Ada Lovelace <ada@example.com>", "hello *** <***>"),
            (
                r#"{"city":"K\u00f6ln","to":"K\u00F6ln"}"#,
                r#"{"city":"***","to":"***"}"#,
            ),
            ("Köln, DE", "***, DE"),
            (r#"{"extra":"c\/o Müller \"GmbH\""}"#, r#"{"extra":"***"}"#),
            (r#"{"extra":"c/o Müller \"GmbH\""}"#, r#"{"extra":"***"}"#),
            ("c/o Müller \"GmbH\"", "***"),
            // Cut by the bound of excerpts.
            ("sent to Unter den Li", "sent to ***"),
            ("sent to Unt", "sent to Unt"),
            ("Ada LovelaceAda Lovelace", "******"),
        ] {
            assert_eq!(mask(answer, &personal), expected, "{answer}");
        }
    }

    #[test]
    fn values_that_overlap_are_taken_out_together() {
        let personal = json!(["Ada Lovelace", "Lovelace Street", "Lovelace"]);
        assert_eq!(mask("at Ada Lovelace Street 1", &personal), "at *** 1");
        assert_eq!(mask("Lovelace", &personal), "***");
    }

    #[test]
    fn nothing_personal_leaves_an_answer_as_it_is() {
        for personal in [
            json!(null),
            json!({}),
            json!({"country": "GB", "age": 36, "consents": true}),
        ] {
            assert_eq!(mask("GB 36 true", &personal), "GB 36 true");
        }
    }

    #[test]
    fn repetitions_take_no_longer() {
        let personal = json!(["a".repeat(5_000) + "b", "a".repeat(4_999)]);
        assert_eq!(mask(&"a".repeat(1_024), &personal), "***");
    }

    proptest! {
        #[test]
        fn no_value_survives_wherever_it_stands(
            before in "[a-z {}\":]{0,20}",
            value in "[a-zA-ZäöüÄÖÜß0-9 ]{4,20}",
            after in "[a-z {}\":]{0,20}",
        ) {
            prop_assume!(value.trim().chars().count() >= VALUE_LENGTH_MIN);
            let value = value.trim();
            let masked = mask(&format!("{before}{value}{after}"), &json!({"name": value}));
            prop_assert!(!masked.contains(value), "{masked}");
            let spelled = format!("{before}{}{after}", value.to_ascii_uppercase());
            let masked = mask(&spelled, &json!([{"name": value}]));
            prop_assert!(!masked.contains(&value.to_ascii_uppercase()), "{masked}");
        }

        #[test]
        fn whatever_is_answered_masking_does_not_panic(answer in ".{0,200}", value in ".{0,20}") {
            let _ = mask(&answer, &json!(value));
        }
    }
}
