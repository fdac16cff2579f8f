//! Documents before they are parsed: how large they are, and how deep their brackets go.
//!
//! The parser descends into brackets by recursion before it counts anything, so that a document of nothing but brackets would exhaust the stack. This
//! looks at the bytes once and recurses nowhere.

use kernel::problem::Problem;

use crate::{
    fault::INVALID_QUERY,
    limits::{BRACKETS_MAX, DOCUMENT_BYTES_MAX},
};

/// Refuses a document that is too large or too deep to be parsed.
pub(crate) fn check(document: &str) -> Result<(), Problem> {
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(Problem::new(
            &INVALID_QUERY,
            format!(
                "A document may have {DOCUMENT_BYTES_MAX} bytes at most. Send what is long as variables."
            ),
        ));
    }
    if bracket_depth(document) > BRACKETS_MAX {
        return Err(Problem::new(
            &INVALID_QUERY,
            format!("Brackets may be nested {BRACKETS_MAX} deep at most."),
        ));
    }
    Ok(())
}

/// How deep brackets go outside of strings and comments.
fn bracket_depth(document: &str) -> u32 {
    let mut depth = 0_u32;
    let mut deepest = 0_u32;
    let mut rest = document.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'{' | b'[' | b'(' => {
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b'#' => rest = after_comment(rest),
            b'"' => {
                rest = match rest.strip_prefix(b"\"\"") {
                    Some(block) => after_block_string(block),
                    None => after_string(rest),
                }
            }
            _ => {}
        }
    }
    deepest
}

fn after_comment(mut rest: &[u8]) -> &[u8] {
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'\n' || byte == b'\r' {
            break;
        }
        rest = after;
    }
    rest
}

/// A string ends at its quote; at a line's end it is broken, and the parser will say so.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' | b'\n' | b'\r' => break,
            b'\\' => rest = after.get(1..).unwrap_or_default(),
            _ => {}
        }
    }
    rest
}

fn after_block_string(mut rest: &[u8]) -> &[u8] {
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(b"\\\"\"\"") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix(b"\"\"\"") {
            return after;
        } else {
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_strings_and_comments_do_not_count() {
        for (document, depth) in [
            ("{a{b(c:[1])}}", 4),
            ("{a}{b}", 1),
            ("{a(b:\"{{{\")}", 2),
            ("{a(b:\"\\\"{{{\")}", 2),
            ("{a(b:\"\"\"{{{\\\"\"\"{{{\"\"\")}", 2),
            ("# {{{\n{a}", 1),
            ("# {{{\r{a}", 1),
            ("{a(b:\"\") {c}}", 2),
            // A string that is never closed hides nothing behind its line.
            ("{a(b:\"\n{{{{", 6),
            ("}}}}{{", 2),
        ] {
            assert_eq!(bracket_depth(document), depth, "{document}");
        }
    }
}
