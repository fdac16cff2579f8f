//! Card numbers, refused where people type: names, addresses, contacts, notes and reasons.
//!
//! A card number passes Luhn's check, begins as an issuer's numbers do, and has a length that this brand uses. All three are asked for, because
//! one number in ten passes the first alone. Never used on SKUs, barcodes, external ids and tracking numbers, which are numbers by nature.

use kernel::validation::Faults;

/// Issuers' numbers: the first digits from and to, how many of them, and the shortest and longest number (ISO/IEC 7812 and the brands' tables).
const BRANDS: &[(u32, u32, usize, &[usize])] = &[
    (4, 4, 1, &[13, 16, 19]),                           // Visa
    (51, 55, 2, &[16]),                                 // Mastercard
    (2221, 2720, 4, &[16]),                             // Mastercard
    (34, 34, 2, &[15]),                                 // American Express
    (37, 37, 2, &[15]),                                 // American Express
    (6011, 6011, 4, &[16, 17, 18, 19]),                 // Discover
    (644, 649, 3, &[16, 17, 18, 19]),                   // Discover
    (65, 65, 2, &[16, 17, 18, 19]),                     // Discover
    (62, 62, 2, &[16, 17, 18, 19]),                     // UnionPay
    (81, 81, 2, &[16, 17, 18, 19]),                     // UnionPay
    (3528, 3589, 4, &[16, 17, 18, 19]),                 // JCB
    (300, 305, 3, &[14, 16, 17, 18, 19]),               // Diners Club
    (309, 309, 3, &[14, 16, 17, 18, 19]),               // Diners Club
    (36, 36, 2, &[14, 15, 16, 17, 18, 19]),             // Diners Club
    (38, 39, 2, &[14, 16, 17, 18, 19]),                 // Diners Club
    (2200, 2204, 4, &[16, 17, 18, 19]),                 // Mir
    (5018, 5018, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (5020, 5020, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (5038, 5038, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (6304, 6304, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (6759, 6763, 4, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
];

/// Digits of the shortest and the longest card number.
const DIGITS: std::ops::RangeInclusive<usize> = 12..=19;

/// Characters between two groups of one number at most: ` - `.
const GAP_MAX: usize = 3;

/// Notes a fault at `step` if `text` has a card number in it.
pub(crate) fn refuse(faults: &mut Faults, step: &str, text: Option<&str>) {
    if text.is_some_and(contains) {
        faults.add(step, "card_number", "must not contain a card number");
    }
}

/// Whether a card number is written somewhere in `text`, in one piece or in groups of digits with blanks, dashes or dots between.
pub(crate) fn contains(text: &str) -> bool {
    let mut groups: Vec<Vec<u32>> = Vec::new();
    let mut gap = 0_usize;
    for character in text.chars() {
        match character.to_digit(10) {
            Some(digit) => {
                if gap > 0 || groups.is_empty() {
                    groups.push(Vec::new());
                }
                gap = 0;
                if let Some(group) = groups.last_mut() {
                    group.push(digit);
                }
            }
            // No-break and thin spaces separate as well.
            None if gap < GAP_MAX
                && (character.is_whitespace()
                    || matches!(character, '-' | '.' | '‐' | '‑' | '–' | '/')) =>
            {
                gap += 1;
            }
            None => {
                if is_any_run(&groups) {
                    return true;
                }
                groups.clear();
                gap = 0;
            }
        }
    }
    is_any_run(&groups)
}

/// A card number begins where a group of digits begins, and ends where one ends.
fn is_any_run(groups: &[Vec<u32>]) -> bool {
    (0..groups.len()).any(|first| {
        let mut digits = Vec::new();
        for group in groups.iter().skip(first) {
            digits.extend_from_slice(group);
            if digits.len() > *DIGITS.end() {
                return false;
            }
            if is_card_number(&digits) {
                return true;
            }
        }
        false
    })
}

fn is_card_number(digits: &[u32]) -> bool {
    DIGITS.contains(&digits.len()) && has_brand(digits) && passes_luhn(digits)
}

fn has_brand(digits: &[u32]) -> bool {
    BRANDS.iter().any(|&(from, to, count, lengths)| {
        let prefix = digits
            .iter()
            .take(count)
            .fold(0, |prefix, digit| prefix * 10 + digit);
        (from..=to).contains(&prefix) && lengths.contains(&digits.len())
    })
}

/// Luhn's check (ISO/IEC 7812-1, annex B).
fn passes_luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match (place % 2, digit * 2) {
            (0, _) => digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brands_test_numbers_are_found_however_they_are_written() {
        for text in [
            "4111111111111111",
            "4222222222222",
            "my card: 4111 1111 1111 1111, thanks",
            "4111-1111-1111-1111",
            "4111 - 1111 - 1111 - 1111",
            "4111\u{a0}1111\u{a0}1111\u{a0}1111",
            "5555555555554444",
            "2223003122003222",
            "3782 822463 10005",
            "6011111111111117",
            "3530111333300000",
            "30569309025904",
            "6200000000000005",
            "flat 12 4111111111111111 12/29",
            "10115 4111 1111 1111 1111",
        ] {
            assert!(contains(text), "{text}");
        }
    }

    #[test]
    fn other_numbers_are_let_through() {
        for text in [
            "",
            "12 St James's Square, SW1Y 4JH",
            "+49 30 901820",
            "4111111111111112",      // fails Luhn
            "9111111111111110",      // no issuer
            "41111111111111",        // no length of its brand
            "994111111111111111199", // inside of a longer number
            "4111 and 1111 and 1111 and 1111",
            "0000000000000000",
        ] {
            assert!(!contains(text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = contains(&text);
        }
    }
}
