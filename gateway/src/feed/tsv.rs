//! Tab-separated text as merchants' programs write it: a line a record, fields put in double quotes where they hold a quote, a tab or a line end.
//!
//! Not every program does. So a quote means something only where it makes sense: a field is quoted if it begins with `"`, ends with `"`, and every quote in
//! between is doubled; otherwise its quotes are part of it (`5" nail`). A quoted field may hold tabs and line ends only if the line by itself has not the
//! header's number of columns, and has it with them. So a stray quote costs nothing but itself, never the rows that follow.

use std::borrow::Cow;

use super::lines::{Fault, Line, Lines};

/// Lines that one record may span. Real descriptions have a few; beyond this, a quote that does not close is taken for a stray one.
const RECORD_LINES_MAX: usize = 200;

/// A record of a file.
pub(super) struct Record {
    /// The line at which it begins.
    pub(super) line: u64,
    /// Its fields, without quotes.
    pub(super) fields: Vec<String>,
    /// Whether some of its bytes were not UTF-8.
    pub(super) undecodable: bool,
}

/// Reads the next record that is not blank, of a file with so many columns.
pub(super) fn next_record(lines: &mut Lines, columns: usize) -> Result<Option<Record>, Fault> {
    let Some(first) = lines.next_not_blank()? else {
        return Ok(None);
    };
    let line = first.number;
    let (text, undecodable) = decode(&first);
    let opens = || {
        text.split('\t')
            .any(|field| matches!(quoted(field), Quoted::Open))
    };
    let odd = text.contains('"') && text.split('\t').count() != columns && opens();
    if odd && let Some((fields, undecodable)) = spanning(lines, &first, columns)? {
        return Ok(Some(Record {
            line,
            fields,
            undecodable,
        }));
    }
    let fields = text
        .split('\t')
        .map(|field| unquoted(field).into_owned())
        .collect();
    Ok(Some(Record {
        line,
        fields,
        undecodable,
    }))
}

fn decode(line: &Line) -> (Cow<'_, str>, bool) {
    let text = String::from_utf8_lossy(&line.bytes);
    let undecodable = matches!(text, Cow::Owned(_));
    (text, undecodable)
}

/// Reads a record some of whose quoted fields hold tabs or line ends; `None`, with nothing read, if that makes no sense.
fn spanning(
    lines: &mut Lines,
    first: &Line,
    columns: usize,
) -> Result<Option<(Vec<String>, bool)>, Fault> {
    let (text, mut undecodable) = decode(first);
    let mut text = text.into_owned();
    let mut taken = Vec::new();
    loop {
        // A line without quotes closes nothing: no need to look at the record again.
        let closes = taken
            .last()
            .is_none_or(|line: &Line| line.bytes.contains(&b'"'));
        match if closes { split(&text) } else { Split::Open } {
            Split::Fields(fields) if fields.len() == columns => {
                return Ok(Some((fields, undecodable)));
            }
            Split::Open if taken.len() < RECORD_LINES_MAX => {}
            Split::Open | Split::Fields(_) | Split::Stray => break,
        }
        let Some(line) = lines.next()? else { break };
        let (more, bad) = decode(&line);
        undecodable |= bad;
        text.push('\n');
        text.push_str(&more);
        taken.push(line);
    }
    while let Some(line) = taken.pop() {
        lines.put_back(line);
    }
    Ok(None)
}

/// A record taken apart by its quotes.
enum Split {
    /// Its fields.
    Fields(Vec<String>),
    /// A quoted field is not closed yet.
    Open,
    /// A quote is neither doubled nor at the end of its field.
    Stray,
}

fn split(record: &str) -> Split {
    let mut fields = Vec::new();
    let mut rest = record;
    loop {
        let Some(inside) = rest.strip_prefix('"') else {
            let (field, after) = rest
                .split_once('\t')
                .map_or((rest, None), |(field, after)| (field, Some(after)));
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Split::Fields(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut inside = inside;
        loop {
            let Some((text, after)) = inside.split_once('"') else {
                return Split::Open;
            };
            field.push_str(text);
            match after.chars().next() {
                Some('"') => {
                    field.push('"');
                    inside = after.get(1..).unwrap_or_default();
                }
                Some('\t') => {
                    fields.push(field);
                    rest = after.get(1..).unwrap_or_default();
                    break;
                }
                None => {
                    fields.push(field);
                    return Split::Fields(fields);
                }
                Some(_) => return Split::Stray,
            }
        }
    }
}

/// What the quotes of a field without tabs mean.
enum Quoted {
    /// It is quoted; the text between its quotes, with quotes still doubled.
    Whole,
    /// It begins with a quote that may be closed after a tab or a line end.
    Open,
    /// Its quotes are part of it.
    Literal,
}

fn quoted(field: &str) -> Quoted {
    let Some(mut inside) = field.strip_prefix('"') else {
        return Quoted::Literal;
    };
    while let Some((_, after)) = inside.split_once('"') {
        match after.strip_prefix('"') {
            Some(next) => inside = next,
            None if after.is_empty() => return Quoted::Whole,
            None => return Quoted::Literal,
        }
    }
    Quoted::Open
}

/// A field without the quotes that are not part of it.
pub(super) fn unquoted(field: &str) -> Cow<'_, str> {
    match quoted(field) {
        Quoted::Whole => {
            let inside = field.get(1..field.len() - 1).unwrap_or_default();
            if inside.contains('"') {
                Cow::Owned(inside.replace("\"\"", "\""))
            } else {
                Cow::Borrowed(inside)
            }
        }
        Quoted::Open | Quoted::Literal => Cow::Borrowed(field),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::io::Cursor;

    use super::*;

    fn records(text: &str, columns: usize) -> Vec<(u64, Vec<String>)> {
        let mut lines = Lines::new(Box::new(Cursor::new(text.to_owned())));
        std::iter::from_fn(|| next_record(&mut lines, columns).ok().unwrap())
            .map(|record| (record.line, record.fields))
            .collect()
    }

    /// A record's line and fields.
    type Fields<'f> = (u64, &'f [&'f str]);

    fn owned(records: &[Fields<'_>]) -> Vec<(u64, Vec<String>)> {
        records
            .iter()
            .map(|(line, fields)| {
                (
                    *line,
                    fields.iter().map(|&field| field.to_owned()).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn quotes_mean_something_only_where_they_make_sense() {
        for (field, read) in [
            ("plain", "plain"),
            (r#""quoted""#, "quoted"),
            (r#""""#, ""),
            (r#""@Keo Scotch 1427-7""""#, r#"@Keo Scotch 1427-7""#),
            (r#""2.3"" X 6.9"" dish""#, r#"2.3" X 6.9" dish"#),
            (r#"5" nail"#, r#"5" nail"#),
            (r#"TV 55""#, r#"TV 55""#),
            (r#""Best" shirt"#, r#""Best" shirt"#),
            (r#""Best" of "All""#, r#""Best" of "All""#),
            (r#"""#, r#"""#),
            (r#""never closed"#, r#""never closed"#),
            (r#"a ""b"" c"#, r#"a ""b"" c"#),
        ] {
            assert_eq!(unquoted(field), read, "{field}");
        }
    }

    #[test]
    fn records_of_many_shapes() {
        let cases: &[(&str, &[Fields<'_>])] = &[
            (
                "a\tb\tc\r\nd\te\tf",
                &[(1, &["a", "b", "c"]), (2, &["d", "e", "f"])],
            ),
            ("\n  \na\tb\tc\n\n", &[(3, &["a", "b", "c"])]),
            ("a\tb\n", &[(1, &["a", "b"])]),
            ("a\tb\tc\td\n", &[(1, &["a", "b", "c", "d"])]),
            // A tab, and line ends, inside quotes.
            ("a\t\"b\tb\"\tc\n", &[(1, &["a", "b\tb", "c"])]),
            (
                "a\t\"b\r\n\nb\"\tc\nd\te\tf\n",
                &[(1, &["a", "b\n\nb", "c"]), (4, &["d", "e", "f"])],
            ),
            // A stray quote is only itself, though later rows have quotes too.
            (
                "a\t\"b\tc\nd\te\tf\n",
                &[(1, &["a", "\"b", "c"]), (2, &["d", "e", "f"])],
            ),
            (
                "a\t\"b\tc\nd\t\"e\"\tf\n",
                &[(1, &["a", "\"b", "c"]), (2, &["d", "e", "f"])],
            ),
            (
                "a\t\"b\tc\nd\te\"\tf\n",
                &[(1, &["a", "\"b", "c"]), (2, &["d", "e\"", "f"])],
            ),
            (
                "a\t\"b\tc\nd\te\tf\"\n",
                &[(1, &["a", "\"b", "c"]), (2, &["d", "e", "f\""])],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(records(text, 3), owned(expected), "{text:?}");
        }
    }

    #[test]
    fn what_was_given_back_is_read_in_order() {
        let mut text = String::from("x\t\"open\tz\n");
        text.extend((0..RECORD_LINES_MAX + 5).map(|row| format!("{row}\tb\tc\n")));
        let read = records(&text, 3);
        assert_eq!(read.len(), RECORD_LINES_MAX + 6);
        for (place, (line, fields)) in read.iter().enumerate().skip(1) {
            assert_eq!(
                (*line, fields.first().cloned()),
                (
                    u64::try_from(place).unwrap() + 1,
                    Some((place - 1).to_string())
                )
            );
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut lines = Lines::new(Box::new(Cursor::new(
            b"\xef\xbb\xbfa\tcaf\xe9\tc\n".to_vec(),
        )));
        let record = next_record(&mut lines, 3).ok().unwrap().unwrap();
        assert_eq!(
            (record.fields, record.undecodable),
            (
                vec!["a".to_owned(), "caf\u{fffd}".to_owned(), "c".to_owned()],
                true
            )
        );
    }
}
