#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{Cursor, Write};

use commerce::product::ProductInput;
use kernel::validation::{JsonError, from_json_line};
use serde_json::{Value, json};

use super::*;

fn feed(text: impl AsRef<[u8]>) -> Result<Feed, Error> {
    Feed::read(Path::new("feed"), Cursor::new(text.as_ref().to_vec()))
}

fn gzipped(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn rows(text: impl AsRef<[u8]>) -> Vec<(u64, Value)> {
    feed(text)
        .unwrap()
        .map(|row| row.unwrap())
        .map(|row| (row.line, serde_json::from_slice(&row.json).unwrap()))
        .collect()
}

/// What the server says of a line: a product, or faults by pointer and code.
type Verdict = Result<ProductInput, Vec<(String, String)>>;

/// The line, the verdict and the notes of the only row of a feed with these columns.
fn read(columns: &[(&str, &str)]) -> (Value, Verdict, Notes) {
    let line =
        |pick: fn(&(&str, &str)) -> String| columns.iter().map(pick).collect::<Vec<_>>().join("\t");
    let mut feed = feed(format!(
        "{}\n{}\n",
        line(|column| column.0.to_owned()),
        line(|column| column.1.to_owned())
    ))
    .unwrap();
    let row = feed.next().unwrap().unwrap();
    assert!(feed.next().is_none());
    let value = serde_json::from_slice(&row.json).unwrap();
    (value, verdict(&row.json), feed.notes())
}

fn verdict(json: &[u8]) -> Verdict {
    from_json_line::<ProductInput>(json).map_err(|error| match error {
        JsonError::Fields(errors) => errors
            .into_iter()
            .map(|error| (error.pointer.unwrap_or_default(), error.code.into_owned()))
            .collect(),
        JsonError::Syntax(detail) => vec![(String::new(), detail)],
    })
}

const HEADER: &str = "id\ttitle\tprice\n";

#[test]
fn formats_are_told_by_content() {
    for (text, format) in [
        ("{\"externalId\": \"1\"}\n".to_owned(), Format::Ndjson),
        (
            "\u{feff}\r\n  {\"externalId\": \"1\"}".to_owned(),
            Format::Ndjson,
        ),
        (format!("{HEADER}1\ta\t1 EUR"), Format::GoogleTsv),
        (format!("\u{feff}{HEADER}"), Format::GoogleTsv),
        (
            "\"ID\"\tg:title\tPrice\tImage link\r\n".to_owned(),
            Format::GoogleTsv,
        ),
    ] {
        assert_eq!(feed(&text).unwrap().format(), format, "{text}");
        assert_eq!(
            feed(gzipped(text.as_bytes())).unwrap().format(),
            format,
            "gzipped {text}"
        );
    }
    for (text, reason) in [
        ("", "empty"),
        (" \n\r\n", "empty"),
        ("[{\"externalId\": \"1\"}]", "JSON array"),
        ("<?xml version=\"1.0\"?>", "XML"),
        (
            "id,title,price\n1,a,1 EUR\n",
            "1 tab-separated columns there is no id and no title and no price",
        ),
        ("id\ttitle\n", "no price"),
    ] {
        let error = feed(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
}

#[test]
fn ndjson_goes_through_untouched() {
    let text = b"\n{\"a\": 1}\r\n\n  {broken\n\xff\n{\"a\": 2}";
    let rows: Vec<_> = feed(text)
        .unwrap()
        .map(|row| row.unwrap())
        .map(|row| (row.line, row.json))
        .collect();
    let expected: [(u64, &[u8]); 4] = [
        (2, b"{\"a\": 1}"),
        (4, b"  {broken"),
        (5, b"\xff"),
        (6, b"{\"a\": 2}"),
    ];
    assert_eq!(rows, expected.map(|(line, json)| (line, json.to_vec())));
}

#[test]
fn gzip_of_several_members_is_one_file_and_a_cut_one_an_error() {
    let mut file = gzipped(HEADER.as_bytes());
    file.extend(gzipped(b"1\ta\t1 EUR\n"));
    assert_eq!(rows(&file).len(), 1);
    file.truncate(file.len() - 9);
    assert!(
        feed(&file)
            .and_then(|mut feed| feed.try_for_each(|row| row.map(drop)))
            .is_err()
    );
}

#[test]
fn a_row_without_end_is_an_error_and_not_a_flood() {
    let endless = std::io::repeat(b'x');
    let header = Cursor::new(HEADER.as_bytes().to_vec());
    let mut feed = Feed::read(Path::new("feed"), header.chain(endless)).unwrap();
    assert!(matches!(
        feed.next(),
        Some(Err(Error::RowTooLong { line: 2, .. }))
    ));
}

#[test]
fn a_whole_row() {
    let (value, product, notes) = read(&[
        ("id", "A-1"),
        ("title", "\"Linen \"\"Summer\"\" shirt \""),
        ("description", "Cool."),
        ("link", "https://shop.example/a-1"),
        ("image_link", "https://shop.example/a.jpg"),
        (
            "additional_image_link",
            "https://shop.example/b,c.jpg, https://shop.example/d.jpg",
        ),
        ("availability", "in_stock"),
        ("price", "49.00 EUR"),
        ("sale_price", "39.5 EUR"),
        ("brand", "Arden"),
        ("gtin", "2000131084137"),
        ("mpn", "LS-1"),
        ("google_product_category", "212"),
        ("product_type", "Apparel > Shirts"),
        ("size", "M"),
        ("", "nameless"),
        ("color", ""),
    ]);
    assert_eq!(
        value,
        json!({
            "externalId": "A-1", "title": "Linen \"Summer\" shirt", "description": "Cool.", "brand": "Arden", "category": "Apparel > Shirts",
            "attributes": [
                {"name": "link", "value": "https://shop.example/a-1"},
                {"name": "availability", "value": "in_stock"},
                {"name": "mpn", "value": "LS-1"},
                {"name": "google_product_category", "value": "212"},
                {"name": "size", "value": "M"},
            ],
            "media": [
                {"url": "https://shop.example/a.jpg", "alt": null, "kind": "image"},
                {"url": "https://shop.example/b,c.jpg", "alt": null, "kind": "image"},
                {"url": "https://shop.example/d.jpg", "alt": null, "kind": "image"},
            ],
            "variants": [{
                "externalId": "A-1", "sku": "A-1", "barcode": "2000131084137",
                "price": {"amount": "39.50", "currency": "EUR"}, "compareAtPrice": {"amount": "49.00", "currency": "EUR"},
            }],
        })
    );
    assert_eq!((product.is_ok(), notes), (true, Notes::default()));
}

#[test]
fn a_row_fails_only_without_id_title_or_readable_price() {
    type Faults<'f> = &'f [(&'f str, &'f str)];
    let cases: &[([&str; 3], Faults<'_>)] = &[
        (["1", "a", "1 EUR"], &[]),
        (["1", "a", "0 EUR"], &[]),
        (["", "a", "1 EUR"], &[("/externalId", "required")]),
        (
            [" ", "\u{a0}", "1 EUR"],
            &[("/externalId", "required"), ("/title", "required")],
        ),
        (["1", "a", ""], &[("/variants/0/price", "required")]),
        (["1", "a", "abc"], &[("/variants/0/price", "invalid")]),
        (["1", "a", "12"], &[("/variants/0/price", "invalid")]),
        (
            ["1", "a", "12.345 EUR"],
            &[("/variants/0/price", "invalid")],
        ),
        (["1", "a", "1,299 EUR"], &[("/variants/0/price", "invalid")]),
        (
            ["1", "a", "-1 EUR"],
            &[("/variants/0/price/amount", "out_of_range")],
        ),
    ];
    for &([id, title, price], expected) in cases {
        let (_, verdict, _) = read(&[("id", id), ("title", title), ("price", price), ("gtin", "")]);
        let faults: Vec<_> = verdict.err().unwrap_or_default();
        let faults: Vec<_> = faults
            .iter()
            .map(|(pointer, code)| (pointer.as_str(), code.as_str()))
            .collect();
        assert_eq!(faults, expected, "{id:?} {title:?} {price:?}");
    }
}

#[test]
fn nothing_else_makes_a_row_fail() {
    let long = "ö".repeat(70_000);
    let shortened = Notes {
        shortened_fields: 1,
        ..Notes::default()
    };
    for (column, field, notes) in [
        ("gtin", "not a GTIN", Notes::default()),
        ("gtin", "1\u{1}2", Notes::default()),
        ("gtin", long.as_str(), shortened),
        ("title", "a\u{0}b", Notes::default()),
        ("title", long.as_str(), shortened),
        ("description", long.as_str(), shortened),
        ("brand", long.as_str(), shortened),
        ("product_type", long.as_str(), shortened),
        ("google_product_category", long.as_str(), shortened),
        ("color", long.as_str(), shortened),
        (long.as_str(), "x", Notes::default()),
        ("image_link", "shop.example/a.jpg", Notes::default()),
        (
            "image_link",
            "https://shop.example/a b.jpg",
            Notes::default(),
        ),
        (
            "sale_price",
            "soon",
            Notes {
                sale_prices_left_out: 1,
                ..Notes::default()
            },
        ),
    ] {
        let columns = [
            ("id", "1"),
            (column, field),
            ("title", "a"),
            ("price", "2 EUR"),
        ];
        let (_, verdict, found) = read(&columns);
        assert_eq!(
            (verdict.err(), found),
            (None, notes),
            "{} = {}",
            &column[..column.len().min(20)],
            &field[..field.len().min(20)]
        );
    }
}

#[test]
fn what_is_too_much_together_does_not_make_a_row_fail() {
    let many: Vec<_> = (0..150).map(|number| format!("c{number}")).collect();
    let mut columns: Vec<_> = many.iter().map(|name| (name.as_str(), "x")).collect();
    columns.extend([("id", "1"), ("title", "a"), ("price", "2 EUR")]);
    let (_, verdict, notes) = read(&columns);
    assert_eq!(
        (verdict.unwrap().attributes.len(), notes.shortened_fields),
        (100, 1)
    );
    // Fields that are not too long each, but more than a line can hold together.
    let wide = "ö".repeat(4_096);
    let mut columns: Vec<_> = many
        .iter()
        .map(|name| (name.as_str(), wide.as_str()))
        .collect();
    columns.extend([
        ("id", "1"),
        ("title", "a"),
        ("price", "2 EUR"),
        ("description", wide.as_str()),
    ]);
    let (value, verdict, _) = read(&columns);
    assert!(verdict.is_ok() && value.to_string().len() < commerce::catalog_import::LINE_BYTES_MAX);
}

#[test]
fn a_sale_price_is_the_price_only_where_it_surely_is() {
    let cases = [
        ("999 INR", "379 INR", "", "379.00", Some("999.00"), 0),
        ("999 INR", "999 INR", "", "999.00", None, 0),
        ("999 INR", "", "", "999.00", None, 0),
        ("999 INR", "1000 INR", "", "999.00", None, 1),
        ("999 INR", "379 EUR", "", "999.00", None, 1),
        ("999 INR", "-1 INR", "", "999.00", None, 1),
        ("999 INR", "379", "", "999.00", None, 1),
        (
            "999 INR",
            "379 INR",
            "2026-11-01T00:00Z/2026-11-30T00:00Z",
            "999.00",
            None,
            1,
        ),
    ];
    for (price, sale, dates, amount, before, left_out) in cases {
        let (_, product, notes) = read(&[
            ("id", "1"),
            ("title", "a"),
            ("price", price),
            ("sale_price", sale),
            ("sale_price_effective_date", dates),
        ]);
        let product = product.unwrap();
        let variant = &product.variants[0];
        assert_eq!(variant.price.amount(), amount, "{price} {sale}");
        assert_eq!(
            variant
                .compare_at_price
                .map(kernel::money::Money::amount)
                .as_deref(),
            before,
            "{price} {sale}"
        );
        assert_eq!(notes.sale_prices_left_out, left_out, "{price} {sale}");
        assert_eq!(
            product
                .attributes
                .iter()
                .any(|attribute| attribute.name == "sale_price"),
            left_out == 1
        );
    }
    // Without a price a row fails, sale or not.
    let (_, verdict, _) = read(&[
        ("id", "1"),
        ("title", "a"),
        ("price", ""),
        ("sale_price", "5 EUR"),
    ]);
    assert_eq!(
        verdict.unwrap_err(),
        [("/variants/0/price".to_owned(), "required".to_owned())]
    );
}

#[test]
fn ragged_and_undecodable_rows_are_read_and_counted() {
    let mut feed = feed(b"id\ttitle\tprice\tbrand\r\n1\ta\t1 EUR\r\n2\tb\t1 EUR\tB\tsurplus\r\n3\tcaf\xe9\t1 EUR\tB\r\n\r\n4\td\t\"1 EUR\"\tB").unwrap();
    let rows: Vec<_> = feed.by_ref().map(|row| row.unwrap()).collect();
    assert_eq!(
        rows.iter().map(|row| row.line).collect::<Vec<_>>(),
        [2, 3, 4, 6]
    );
    assert!(rows.iter().all(|row| verdict(&row.json).is_ok()));
    assert_eq!(
        feed.notes(),
        Notes {
            ragged_rows: 2,
            undecodable_rows: 1,
            ..Notes::default()
        }
    );
}
