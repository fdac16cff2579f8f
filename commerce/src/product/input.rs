//! What a product's input may be, and its normal form.

use std::collections::HashSet;

use kernel::{
    money::Money,
    validation::{Faults, Validate},
};

use super::{Attribute, Media, ProductInput, ProductOption, VariantInput};

/// Characters of an external id, SKU or barcode: longer than any id that shops and ERPs are known to use, and short enough for an index.
pub const EXTERNAL_ID_CHARACTERS_MAX: usize = 255;

/// Characters of a title: those of real feeds exceed 300.
pub const TITLE_CHARACTERS_MAX: usize = 500;

/// Characters of a description: a long page of HTML.
const DESCRIPTION_CHARACTERS_MAX: usize = 65_536;

/// Characters of a brand, tag, option or attribute's name.
const NAME_CHARACTERS_MAX: usize = 255;

/// Characters of a category: a path of several names.
const CATEGORY_CHARACTERS_MAX: usize = 1_000;

/// Characters of an attribute's value: a paragraph.
const ATTRIBUTE_VALUE_CHARACTERS_MAX: usize = 4_096;

/// Characters of a URL: what browsers and proxies are sure to carry.
const URL_CHARACTERS_MAX: usize = 2_048;

/// Variants of a product: an event carries the product with all of them, and receivers have limits too.
pub const VARIANTS_MAX: usize = 250;

/// Options of a product: what a person can choose by.
pub const OPTIONS_MAX: usize = 10;

/// Values of an option: more than there can be variants would never be chosen.
const OPTION_VALUES_MAX: usize = VARIANTS_MAX;

/// Attributes of a product or a variant.
pub const ATTRIBUTES_MAX: usize = 100;

/// Tags of a product.
pub const TAGS_MAX: usize = 250;

/// Media of a product.
pub const MEDIA_MAX: usize = 250;

/// The highest price in minor units: a line of a million pieces of it is still counted in 64 bits.
pub const PRICE_MINOR_MAX: i64 = 1_000_000_000_000;

/// The highest weight: a hundred tonnes.
pub const WEIGHT_GRAMS_MAX: i32 = 100_000_000;

impl Validate for ProductInput {
    fn validate(&self, faults: &mut Faults) {
        identifier(faults, "/externalId", &self.external_id);
        faults.text("/title", &self.title, TITLE_CHARACTERS_MAX);
        faults.optional_text(
            "/description",
            self.description.as_deref(),
            DESCRIPTION_CHARACTERS_MAX,
        );
        faults.optional_text("/brand", self.brand.as_deref(), NAME_CHARACTERS_MAX);
        faults.optional_text(
            "/category",
            self.category.as_deref(),
            CATEGORY_CHARACTERS_MAX,
        );
        faults.at_most("/tags", &self.tags, TAGS_MAX);
        for (place, tag) in self.tags.iter().enumerate().take(TAGS_MAX) {
            faults.text(&format!("/tags/{place}"), tag, NAME_CHARACTERS_MAX);
        }
        options(faults, &self.options);
        attributes(faults, &self.attributes);
        faults.at_most("/media", &self.media, MEDIA_MAX);
        for (place, media) in self.media.iter().enumerate().take(MEDIA_MAX) {
            faults.within(&format!("/media/{place}"), |faults| medium(faults, media));
        }
        if self.variants.is_empty() {
            faults.add("/variants", "required", "must have at least one element");
        }
        faults.at_most("/variants", &self.variants, VARIANTS_MAX);
        let mut seen = HashSet::new();
        for (place, input) in self.variants.iter().enumerate().take(VARIANTS_MAX) {
            faults.within(&format!("/variants/{place}"), |faults| {
                match &input.external_id {
                    Some(external_id) => {
                        identifier(faults, "/externalId", external_id);
                        if !seen.insert(external_id.as_str()) {
                            faults.add(
                                "/externalId",
                                "duplicate",
                                "must be unique within the product",
                            );
                        }
                    }
                    None if self.variants.len() > 1 => {
                        faults.add(
                            "/externalId",
                            "required",
                            "must be given where there are several variants",
                        );
                    }
                    None => {}
                }
                variant(faults, input, &self.options);
            });
        }
    }
}

fn options(faults: &mut Faults, options: &[ProductOption]) {
    faults.at_most("/options", options, OPTIONS_MAX);
    let mut seen = HashSet::new();
    for (place, option) in options.iter().enumerate().take(OPTIONS_MAX) {
        faults.within(&format!("/options/{place}"), |faults| {
            faults.text("/name", &option.name, NAME_CHARACTERS_MAX);
            if !seen.insert(option.name.as_str()) {
                faults.add("/name", "duplicate", "must be unique within the product");
            }
            faults.at_most("/values", &option.values, OPTION_VALUES_MAX);
            for (place, value) in option.values.iter().enumerate().take(OPTION_VALUES_MAX) {
                faults.text(&format!("/values/{place}"), value, NAME_CHARACTERS_MAX);
            }
        });
    }
}

fn attributes(faults: &mut Faults, attributes: &[Attribute]) {
    faults.at_most("/attributes", attributes, ATTRIBUTES_MAX);
    for (place, attribute) in attributes.iter().enumerate().take(ATTRIBUTES_MAX) {
        faults.within(&format!("/attributes/{place}"), |faults| {
            faults.text("/name", &attribute.name, NAME_CHARACTERS_MAX);
            faults.optional_text(
                "/value",
                Some(&attribute.value),
                ATTRIBUTE_VALUE_CHARACTERS_MAX,
            );
        });
    }
}

fn medium(faults: &mut Faults, media: &Media) {
    faults.text("/url", &media.url, URL_CHARACTERS_MAX);
    let has_scheme = media.url.starts_with("https://") || media.url.starts_with("http://");
    if !has_scheme || media.url.contains(char::is_whitespace) {
        faults.add("/url", "invalid", "must be an https or http URL");
    }
    faults.optional_text("/alt", media.alt.as_deref(), ATTRIBUTE_VALUE_CHARACTERS_MAX);
}

fn variant(faults: &mut Faults, variant: &VariantInput, options: &[ProductOption]) {
    for (step, text) in [("/sku", &variant.sku), ("/barcode", &variant.barcode)] {
        if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
            identifier(faults, step, text);
        }
    }
    price(faults, "/price", variant.price);
    if let Some(before) = variant.compare_at_price {
        price(faults, "/compareAtPrice", before);
        if before.currency() != variant.price.currency() {
            faults.add(
                "/compareAtPrice/currency",
                "invalid",
                "must be the currency of the price",
            );
        }
    }
    if variant
        .weight_grams
        .is_some_and(|grams| !(0..=WEIGHT_GRAMS_MAX).contains(&grams))
    {
        faults.add(
            "/weightGrams",
            "out_of_range",
            format!("must be from 0 to {WEIGHT_GRAMS_MAX}"),
        );
    }
    if variant.option_values.len() == options.len() {
        for (place, (value, option)) in variant.option_values.iter().zip(options).enumerate() {
            if !option.values.contains(value) {
                faults.add(
                    &format!("/optionValues/{place}"),
                    "invalid",
                    format!("must be one of the values of option {place}"),
                );
            }
        }
    } else {
        let detail = format!(
            "must have a value for each of the {} options",
            options.len()
        );
        faults.add("/optionValues", "invalid", detail);
    }
    attributes(faults, &variant.attributes);
}

fn price(faults: &mut Faults, step: &str, price: Money) {
    if !(0..=PRICE_MINOR_MAX).contains(&price.minor()) {
        let most = Money::new(PRICE_MINOR_MAX, price.currency());
        faults.add(
            &format!("{step}/amount"),
            "out_of_range",
            format!("must be from 0 to {}", most.amount()),
        );
    }
}

/// What merchants name things by: any text that can be printed in one line.
fn identifier(faults: &mut Faults, step: &str, text: &str) {
    if text.is_empty() {
        faults.add(step, "required", "must not be empty");
    }
    if text.chars().count() > EXTERNAL_ID_CHARACTERS_MAX {
        faults.add(
            step,
            "too_long",
            format!("must have at most {EXTERNAL_ID_CHARACTERS_MAX} characters"),
        );
    }
    if text.chars().any(char::is_control) {
        faults.add(step, "invalid", "must not contain control characters");
    }
}

impl ProductInput {
    /// The normal form of a valid input: two inputs that mean the same are equal, and equal to [`super::Product::to_input`].
    pub(super) fn normalized(self) -> Self {
        let mut normal = self;
        for text in [
            &mut normal.description,
            &mut normal.brand,
            &mut normal.category,
        ] {
            text.take_if(|text| text.is_empty());
        }
        for media in &mut normal.media {
            media.alt.take_if(|alt| alt.is_empty());
        }
        for variant in &mut normal.variants {
            variant
                .external_id
                .get_or_insert_with(|| normal.external_id.clone());
            variant.sku.take_if(|sku| sku.is_empty());
            variant.barcode.take_if(|barcode| barcode.is_empty());
        }
        normal
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use kernel::validation::{JsonError, from_json_line};
    use serde_json::{Value, json};

    use super::*;

    fn faults(change: impl FnOnce(&mut Value)) -> Vec<(String, String)> {
        let mut input = json!({
            "externalId": "SHIRT-1",
            "title": "Linen shirt",
            "options": [{"name": "Size", "values": ["M", "L"]}],
            "variants": [
                {"externalId": "M", "price": {"amount": "1", "currency": "EUR"}, "optionValues": ["M"]},
                {"externalId": "L", "price": {"amount": "1", "currency": "EUR"}, "optionValues": ["L"]},
            ],
        });
        change(&mut input);
        match from_json_line::<ProductInput>(input.to_string().as_bytes()) {
            Ok(_) => Vec::new(),
            Err(JsonError::Fields(errors)) => errors
                .into_iter()
                .map(|error| (error.pointer.unwrap(), error.code.into_owned()))
                .collect(),
            Err(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn each_fault_has_its_pointer_and_code() {
        let long = "x".repeat(256);
        let cases: [(&str, Value, &[_]); _] = [
            ("/title", json!("Linen"), &[]),
            ("/externalId", json!("مرحبا /?#%"), &[]),
            ("/externalId", json!(""), &[("/externalId", "required")]),
            (
                "/externalId",
                json!("a\u{0}"),
                &[("/externalId", "invalid")],
            ),
            ("/externalId", json!(long), &[("/externalId", "too_long")]),
            ("/variants", json!([]), &[("/variants", "required")]),
            (
                "/variants/0/externalId",
                json!("L"),
                &[("/variants/1/externalId", "duplicate")],
            ),
            (
                "/variants/0/externalId",
                Value::Null,
                &[("/variants/0/externalId", "required")],
            ),
            (
                "/variants/0/price/amount",
                json!("-1"),
                &[("/variants/0/price/amount", "out_of_range")],
            ),
            (
                "/variants/0/price/amount",
                json!("10000000000.01"),
                &[("/variants/0/price/amount", "out_of_range")],
            ),
            (
                "/variants/0/price/amount",
                json!("1.001"),
                &[("/variants/0/price", "invalid")],
            ),
            (
                "/variants/0/optionValues",
                json!([]),
                &[("/variants/0/optionValues", "invalid")],
            ),
            (
                "/variants/0/optionValues/0",
                json!("XL"),
                &[("/variants/0/optionValues/0", "invalid")],
            ),
            (
                "/options/0/name",
                json!(" "),
                &[("/options/0/name", "required")],
            ),
        ];
        for (pointer, value, expected) in cases {
            let found = faults(|input| *input.pointer_mut(pointer).unwrap() = value.clone());
            let expected: Vec<_> = expected
                .iter()
                .map(|&(at, code)| (at.to_owned(), code.to_owned()))
                .collect();
            assert_eq!(found, expected, "{pointer} = {value}");
        }
    }

    #[test]
    fn what_may_be_left_out_and_what_goes_together() {
        let variant = |more: Value| {
            let mut variant = json!({"price": {"amount": "1", "currency": "EUR"}});
            variant
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            move |input: &mut Value| {
                input["options"] = json!([]);
                input["variants"] = json!([variant]);
            }
        };
        assert_eq!(faults(variant(json!({}))), []);
        assert_eq!(
            faults(variant(json!({"sku": "", "barcode": "not a GTIN"}))),
            []
        );
        let pair = |pointer: &str, code: &str| vec![(pointer.to_owned(), code.to_owned())];
        assert_eq!(
            faults(variant(
                json!({"compareAtPrice": {"amount": "2", "currency": "USD"}})
            )),
            pair("/variants/0/compareAtPrice/currency", "invalid")
        );
        assert_eq!(
            faults(variant(json!({"weightGrams": -1}))),
            pair("/variants/0/weightGrams", "out_of_range")
        );
        assert_eq!(
            faults(variant(json!({"weightGrams": 3_000_000_000_i64}))),
            pair("/variants/0/weightGrams", "invalid")
        );
        assert_eq!(
            faults(|input| input["media"] = json!([{"url": "javascript:alert(1)"}])),
            pair("/media/0/url", "invalid")
        );
    }

    #[test]
    fn inputs_that_mean_the_same_have_one_normal_form() {
        let read = |json: Value| {
            serde_json::from_value::<ProductInput>(json)
                .unwrap()
                .normalized()
        };
        let price = json!({"amount": "1.50", "currency": "EUR"});
        assert_eq!(
            read(json!({"externalId": "A", "title": "A", "variants": [{"price": price}]})),
            read(
                json!({"externalId": "A", "title": "A", "description": "", "status": "active", "tags": [],
                "variants": [{"externalId": "A", "sku": "", "price": {"amount": "1.5", "currency": "EUR"}}]})
            ),
        );
    }
}
