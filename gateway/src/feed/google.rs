//! Google Merchant feeds: a header that names the columns, and a product a row.
//!
//! Each row becomes a product with one variant. `id` is the product's external id, the variant's, and its SKU; `mpn` is no SKU, because makers' numbers
//! repeat within real feeds, and neither are rows put together by `item_group_id`: both are kept as attributes, as is every column that products have no
//! field for.

use std::borrow::Cow;

use commerce::{
    catalog_import::LINE_BYTES_MAX,
    product::{
        ATTRIBUTES_MAX, Attribute, EXTERNAL_ID_CHARACTERS_MAX, MEDIA_MAX, Media, MediaKind,
        PRICE_MINOR_MAX, TITLE_CHARACTERS_MAX,
    },
};
use kernel::money::Money;
use serde::Serialize;

use super::{
    Notes, Row,
    lines::{Fault, Lines},
    price::{self, Price},
    tsv::{self, Record},
};

/// Characters of a description that a product may have.
const DESCRIPTION_CHARACTERS_MAX: usize = 65_536;

/// Characters of a brand or an attribute's name that a product may have.
const NAME_CHARACTERS_MAX: usize = 255;

/// Characters of a category that a product may have.
const CATEGORY_CHARACTERS_MAX: usize = 1_000;

/// Characters of an attribute's value that a product may have.
const ATTRIBUTE_VALUE_CHARACTERS_MAX: usize = 4_096;

/// Characters of a URL that a product may have.
const URL_CHARACTERS_MAX: usize = 2_048;

/// What a column is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Id,
    Title,
    Description,
    ImageLink,
    AdditionalImageLink,
    Price,
    SalePrice,
    SalePriceEffectiveDate,
    Brand,
    Gtin,
    ProductType,
    GoogleProductCategory,
    /// One that becomes an attribute of this name.
    Other(String),
    /// One without a name.
    Nameless,
}

impl Column {
    /// Reads a header's field: `image_link`, `Image link` and `g:image_link` are one.
    fn named(header: &str) -> Self {
        let name = clean(&tsv::unquoted(header.trim()), false)
            .to_lowercase()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join("_");
        match name.strip_prefix("g:").unwrap_or(&name) {
            "" => Self::Nameless,
            "id" => Self::Id,
            "title" => Self::Title,
            "description" => Self::Description,
            "image_link" => Self::ImageLink,
            "additional_image_link" => Self::AdditionalImageLink,
            "price" => Self::Price,
            "sale_price" => Self::SalePrice,
            "sale_price_effective_date" => Self::SalePriceEffectiveDate,
            "brand" => Self::Brand,
            "gtin" => Self::Gtin,
            "product_type" => Self::ProductType,
            "google_product_category" => Self::GoogleProductCategory,
            other => Self::Other(other.chars().take(NAME_CHARACTERS_MAX).collect()),
        }
    }
}

/// Reads the rows of a Google Merchant feed.
pub(super) struct Reader {
    columns: Vec<Column>,
    lines: Lines,
    notes: Notes,
}

/// A line for the import. Unlike `ProductInput` it can lack what a row lacks, and carry a price that is none.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Product {
    external_id: String,
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    brand: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<Attribute>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    media: Vec<Media>,
    variants: [Variant; 1],
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Variant {
    #[serde(skip_serializing_if = "String::is_empty")]
    external_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    sku: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    barcode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Price>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compare_at_price: Option<Money>,
}

impl Reader {
    /// A reader of the lines after a header; the sentence says why that is none.
    pub(super) fn new(header: &str, lines: Lines) -> Result<Self, String> {
        let columns: Vec<_> = header.split('\t').map(Column::named).collect();
        let missing: Vec<_> = [
            (Column::Id, "id"),
            (Column::Title, "title"),
            (Column::Price, "price"),
        ]
        .into_iter()
        .filter(|(column, _)| !columns.contains(column))
        .map(|(_, name)| name)
        .collect();
        if missing.is_empty() {
            return Ok(Self {
                columns,
                lines,
                notes: Notes::default(),
            });
        }
        Err(format!(
            "the first line is neither JSON nor the header of a Google Merchant TSV: among its {} tab-separated columns there is no {}",
            columns.len(),
            missing.join(" and no "),
        ))
    }

    /// What was not kept as it was found so far.
    pub(super) const fn notes(&self) -> Notes {
        self.notes
    }

    /// The next row.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, Fault> {
        let Some(record) = tsv::next_record(&mut self.lines, self.columns.len())? else {
            return Ok(None);
        };
        self.notes.undecodable_rows += u64::from(record.undecodable);
        self.notes.ragged_rows += u64::from(record.fields.len() != self.columns.len());
        let mut product = product(&self.columns, &record, &mut self.notes);
        let mut json = to_json(&product)?;
        if json.len() > LINE_BYTES_MAX {
            // Each field has its place, but all of them together do not: what describes the product goes before what makes it one.
            product.attributes.clear();
            product.media.clear();
            self.notes.shortened_fields += 1;
            json = to_json(&product)?;
        }
        Ok(Some(Row {
            line: record.line,
            json,
        }))
    }
}

fn to_json(product: &Product) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(product).map_err(|error| Fault::Read(error.into()))
}

/// A row's fields beside their columns.
struct Fields<'r> {
    columns: &'r [Column],
    fields: &'r [String],
}

impl<'r> Fields<'r> {
    /// Every field that is not blank, with its column.
    fn all(&self) -> impl Iterator<Item = (&'r Column, &'r str)> {
        self.columns
            .iter()
            .zip(self.fields)
            .map(|(column, field)| (column, field.trim()))
            .filter(|(_, field)| !field.is_empty())
    }

    /// The first field of a column that is not blank.
    fn first(&self, wanted: &Column) -> Option<&'r str> {
        self.all()
            .find(|(column, _)| *column == wanted)
            .map(|(_, field)| field)
    }
}

fn product(columns: &[Column], record: &Record, notes: &mut Notes) -> Product {
    let fields = Fields {
        columns,
        fields: &record.fields,
    };
    let mut shorten = Shorten { shortened: 0 };
    // An id is never shortened: two rows could then be taken for one product.
    let id = fields
        .first(&Column::Id)
        .map(|id| clean(id, false).trim().to_owned())
        .unwrap_or_default();
    let mut attributes = Vec::new();
    let mut media = Vec::new();

    let own_category = fields.first(&Column::ProductType);
    let google_category = fields.first(&Column::GoogleProductCategory);
    let mut barcode = None;
    for (column, field) in fields.all() {
        match column {
            Column::Other(name) => attributes.push((name.as_str(), field)),
            Column::ImageLink => add_media(&mut media, &mut attributes, "image_link", [field]),
            Column::AdditionalImageLink => add_media(
                &mut media,
                &mut attributes,
                "additional_image_link",
                links(field),
            ),
            Column::GoogleProductCategory if own_category.is_some() => {
                attributes.push(("google_product_category", field));
            }
            Column::Gtin if field.chars().count() > EXTERNAL_ID_CHARACTERS_MAX => {
                attributes.push(("gtin", field));
            }
            Column::Gtin if barcode.is_none() => barcode = Some(clean(field, false).into_owned()),
            _ => {}
        }
    }
    let (price, compare_at_price) = prices(&fields, &mut attributes, notes);
    if media.len() > MEDIA_MAX || attributes.len() > ATTRIBUTES_MAX {
        shorten.shortened += 1;
        media.truncate(MEDIA_MAX);
        attributes.truncate(ATTRIBUTES_MAX);
    }
    let product = Product {
        title: fields
            .first(&Column::Title)
            .map(|title| shorten.line(title, TITLE_CHARACTERS_MAX))
            .unwrap_or_default(),
        description: fields
            .first(&Column::Description)
            .map(|text| shorten.to(&clean(text, true), DESCRIPTION_CHARACTERS_MAX)),
        brand: fields
            .first(&Column::Brand)
            .map(|brand| shorten.line(brand, NAME_CHARACTERS_MAX)),
        category: own_category
            .or(google_category)
            .map(|category| shorten.line(category, CATEGORY_CHARACTERS_MAX)),
        attributes: attributes
            .into_iter()
            .map(|(name, value)| Attribute {
                name: name.to_owned(),
                value: shorten.to(&clean(value, true), ATTRIBUTE_VALUE_CHARACTERS_MAX),
            })
            .collect(),
        media: media
            .into_iter()
            .map(|url| Media {
                url,
                alt: None,
                kind: MediaKind::Image,
            })
            .collect(),
        variants: [Variant {
            external_id: id.clone(),
            sku: id.clone(),
            barcode,
            price,
            compare_at_price,
        }],
        external_id: id,
    };
    notes.shortened_fields += shorten.shortened;
    product
}

/// What the product costs, and what it cost before: the sale price is the price where it is one, and `price` then the one before.
fn prices<'r>(
    fields: &Fields<'r>,
    attributes: &mut Vec<(&'r str, &'r str)>,
    notes: &mut Notes,
) -> (Option<Price>, Option<Money>) {
    let price = fields.first(&Column::Price).and_then(price::read);
    let Some(sale_text) = fields.first(&Column::SalePrice) else {
        return (price, None);
    };
    let dates = fields.first(&Column::SalePriceEffectiveDate);
    let sale = price::read(sale_text).and_then(|sale| sale.money());
    let before = price.as_ref().and_then(Price::money);
    if let (Some(before), Some(sale)) = (before, sale) {
        let comparable = before.currency() == sale.currency()
            && before.minor() <= PRICE_MINOR_MAX
            && sale.minor() >= 0;
        // A product has one price at a time: one that holds for some days only would stay beyond its end.
        if comparable && sale.minor() < before.minor() && dates.is_none() {
            return (Some(Price::Readable(sale)), Some(before));
        }
        if sale == before {
            return (price, None);
        }
    }
    notes.sale_prices_left_out += 1;
    attributes.push(("sale_price", sale_text));
    attributes.extend(dates.map(|dates| ("sale_price_effective_date", dates)));
    (price, None)
}

/// Adds what is a URL to the media, and keeps what is not as an attribute.
fn add_media<'r>(
    media: &mut Vec<String>,
    attributes: &mut Vec<(&'r str, &'r str)>,
    name: &'r str,
    urls: impl IntoIterator<Item = &'r str>,
) {
    for url in urls {
        let absolute = url.starts_with("https://") || url.starts_with("http://");
        let printable =
            !url.contains(|character: char| character.is_whitespace() || character.is_control());
        if absolute && printable && url.chars().count() <= URL_CHARACTERS_MAX {
            media.push(url.to_owned());
        } else {
            attributes.push((name, url));
        }
    }
}

/// The links of a list separated by commas, some of which may be part of a link.
fn links(list: &str) -> Vec<&str> {
    let mut starts = vec![0];
    for (comma, _) in list.match_indices(',') {
        let rest = list.get(comma + 1..).unwrap_or_default().trim_start();
        if rest.starts_with("https://") || rest.starts_with("http://") {
            starts.push(comma + 1);
        }
    }
    let ends = starts
        .iter()
        .skip(1)
        .map(|start| start - 1)
        .chain([list.len()]);
    let links = starts
        .iter()
        .zip(ends)
        .filter_map(|(&start, end)| list.get(start..end));
    links
        .map(|link| {
            link.trim_matches(|character: char| character.is_whitespace() || character == ',')
        })
        .filter(|link| !link.is_empty())
        .collect()
}

/// A text without control characters, which products can't have; line ends and tabs stay where `several_lines` says so.
fn clean(text: &str, several_lines: bool) -> Cow<'_, str> {
    let unwanted = |character: char| {
        character.is_control() && !(several_lines && matches!(character, '\n' | '\r' | '\t'))
    };
    if text.contains(unwanted) {
        Cow::Owned(text.replace(unwanted, " "))
    } else {
        Cow::Borrowed(text)
    }
}

/// Shortens texts to what a product can have, and counts how often it had to.
struct Shorten {
    shortened: u64,
}

impl Shorten {
    /// A text of one line.
    fn line(&mut self, text: &str, characters_max: usize) -> String {
        self.to(clean(text, false).trim(), characters_max)
    }

    /// A text with at most so many characters; the last one shows that something is missing.
    fn to(&mut self, text: &str, characters_max: usize) -> String {
        if text.chars().nth(characters_max).is_none() {
            return text.to_owned();
        }
        self.shortened += 1;
        text.chars().take(characters_max - 1).chain(['…']).collect()
    }
}
