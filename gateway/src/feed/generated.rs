//! Products out of nothing: as many as wanted, the same each time, and such as a department store could sell.
//!
//! For `stoa demo` and for measuring. No chance is involved: a product's number decides everything about it, so that a product's external id stands for the same
//! product whatever the number of products, and bringing them in again changes nothing.

use commerce::product::{
    Attribute, Media, MediaKind, ProductInput, ProductOption, ProductStatus, VariantInput,
};
use kernel::money::{Currency, Money};

use super::Row;

/// A kind of goods.
struct Goods {
    /// What it is called.
    noun: &'static str,
    /// Where it belongs.
    category: &'static str,
    /// What it is made of, or how it is made.
    materials: &'static [&'static str],
    /// What its variants differ in, and the values.
    option: Option<(&'static str, &'static [&'static str])>,
    /// From what it costs to what it costs at most, in whole units of money.
    price_range: (u64, u64),
    /// What it weighs.
    weight_grams: u64,
}

const FABRICS: &[&str] = &[
    "Linen",
    "Organic Cotton",
    "Merino Wool",
    "Flannel",
    "Jersey",
    "Denim",
    "Corduroy",
];
const LEATHERS: &[&str] = &[
    "Suede",
    "Full-Grain Leather",
    "Vegan Leather",
    "Waxed Canvas",
];
const HARD: &[&str] = &[
    "Oak",
    "Walnut",
    "Stoneware",
    "Enamel",
    "Cast Iron",
    "Stainless Steel",
    "Bamboo",
    "Glass",
];
const SOFT: &[&str] = &[
    "Linen",
    "Organic Cotton",
    "Percale",
    "Waffle",
    "Boucle",
    "Velvet",
];
const SCENTS: &[&str] = &[
    "Cedar",
    "Lavender",
    "Unscented",
    "Orange Blossom",
    "Oat Milk",
    "Rosemary",
];
const ROASTS: &[&str] = &[
    "Light Roast",
    "Dark Roast",
    "Single Origin",
    "Organic",
    "Fair Trade",
];
const TECH: &[&str] = &[
    "Compact",
    "Wireless",
    "Rechargeable",
    "Foldable",
    "Aluminium",
    "Solar",
];

const SIZES: &[&str] = &["XS", "S", "M", "L", "XL"];
const SHOE_SIZES: &[&str] = &["38", "39", "40", "41", "42", "43", "44"];
const COLORS: &[&str] = &["Ink", "Sand", "Moss", "Rust"];
const PACKS: &[&str] = &["250 g", "500 g", "1 kg"];

const GOODS: &[Goods] = &[
    Goods {
        noun: "Shirt",
        category: "Apparel > Tops",
        materials: FABRICS,
        option: Some(("Size", SIZES)),
        price_range: (29, 89),
        weight_grams: 240,
    },
    Goods {
        noun: "Overshirt",
        category: "Apparel > Tops",
        materials: FABRICS,
        option: Some(("Size", SIZES)),
        price_range: (59, 149),
        weight_grams: 520,
    },
    Goods {
        noun: "Trousers",
        category: "Apparel > Bottoms",
        materials: FABRICS,
        option: Some(("Size", SIZES)),
        price_range: (49, 129),
        weight_grams: 480,
    },
    Goods {
        noun: "Sneakers",
        category: "Apparel > Shoes",
        materials: LEATHERS,
        option: Some(("Size", SHOE_SIZES)),
        price_range: (69, 189),
        weight_grams: 900,
    },
    Goods {
        noun: "Backpack",
        category: "Luggage > Backpacks",
        materials: LEATHERS,
        option: Some(("Color", COLORS)),
        price_range: (59, 219),
        weight_grams: 1_100,
    },
    Goods {
        noun: "Tote Bag",
        category: "Luggage > Bags",
        materials: LEATHERS,
        option: Some(("Color", COLORS)),
        price_range: (19, 119),
        weight_grams: 420,
    },
    Goods {
        noun: "Mug",
        category: "Kitchen > Tableware",
        materials: HARD,
        option: Some(("Color", COLORS)),
        price_range: (9, 29),
        weight_grams: 350,
    },
    Goods {
        noun: "Salad Bowl",
        category: "Kitchen > Tableware",
        materials: HARD,
        option: None,
        price_range: (19, 79),
        weight_grams: 1_200,
    },
    Goods {
        noun: "Chopping Board",
        category: "Kitchen > Tools",
        materials: HARD,
        option: None,
        price_range: (14, 69),
        weight_grams: 1_600,
    },
    Goods {
        noun: "Saucepan",
        category: "Kitchen > Cookware",
        materials: HARD,
        option: None,
        price_range: (29, 159),
        weight_grams: 1_900,
    },
    Goods {
        noun: "Cushion",
        category: "Home > Textiles",
        materials: SOFT,
        option: Some(("Color", COLORS)),
        price_range: (14, 59),
        weight_grams: 600,
    },
    Goods {
        noun: "Duvet Cover",
        category: "Home > Bedding",
        materials: SOFT,
        option: Some(("Color", COLORS)),
        price_range: (49, 179),
        weight_grams: 1_400,
    },
    Goods {
        noun: "Towel",
        category: "Home > Bath",
        materials: SOFT,
        option: Some(("Color", COLORS)),
        price_range: (9, 39),
        weight_grams: 550,
    },
    Goods {
        noun: "Hand Soap",
        category: "Beauty > Bath",
        materials: SCENTS,
        option: None,
        price_range: (4, 19),
        weight_grams: 520,
    },
    Goods {
        noun: "Scented Candle",
        category: "Home > Decor",
        materials: SCENTS,
        option: None,
        price_range: (12, 49),
        weight_grams: 380,
    },
    Goods {
        noun: "Coffee Beans",
        category: "Food > Coffee",
        materials: ROASTS,
        option: Some(("Weight", PACKS)),
        price_range: (7, 24),
        weight_grams: 270,
    },
    Goods {
        noun: "Green Tea",
        category: "Food > Tea",
        materials: ROASTS,
        option: Some(("Weight", PACKS)),
        price_range: (5, 22),
        weight_grams: 270,
    },
    Goods {
        noun: "Desk Lamp",
        category: "Home > Lighting",
        materials: TECH,
        option: None,
        price_range: (29, 149),
        weight_grams: 1_300,
    },
    Goods {
        noun: "Bicycle Light",
        category: "Sports > Cycling",
        materials: TECH,
        option: None,
        price_range: (14, 79),
        weight_grams: 160,
    },
    Goods {
        noun: "Travel Speaker",
        category: "Electronics > Audio",
        materials: TECH,
        option: Some(("Color", COLORS)),
        price_range: (39, 199),
        weight_grams: 620,
    },
];

const BRANDS: &[&str] = &[
    "Arden",
    "Bellweather",
    "Calder & Sons",
    "Dovetail",
    "Estuary",
    "Fernhill",
    "Granby",
    "Hollis",
    "Isla Works",
    "Juniper Row",
    "Kestrel",
    "Lowfield",
    "Marram",
    "Norrland",
    "Osier",
    "Pell",
    "Quarry Lane",
    "Rook & Rye",
    "Saltmarsh",
    "Thornbury",
    "Umber",
    "Vale Supply",
    "Wren",
];

const LINES: &[&str] = &[
    "", "Classic", "Everyday", "Heritage", "Studio", "Field", "Coast", "Atelier",
];

/// The prefix of our GTINs: 200 to 299 are for use within a company, so that no real article is meant.
const GTIN_PREFIX: u64 = 200;

/// Products 1 to `count`. Prices are in euros.
pub fn products(count: u64) -> impl Iterator<Item = ProductInput> + Send {
    (1..=count).filter_map(product)
}

/// The same as rows of a feed.
pub fn rows(count: u64) -> impl Iterator<Item = Row> + Send {
    (1..).zip(products(count)).filter_map(|(line, product)| {
        Some(Row {
            line,
            json: serde_json::to_vec(&product).ok()?,
        })
    })
}

/// Product `number`; `None` never comes, the lists being neither empty nor the currency unknown.
fn product(number: u64) -> Option<ProductInput> {
    let mut draw = Draw(number);
    let goods = draw.one_of(GOODS)?;
    let material = draw.one_of(goods.materials)?;
    let brand = draw.one_of(BRANDS)?;
    let line = draw.one_of(LINES)?;
    let euro: Currency = "EUR".parse().ok()?;
    let external_id = format!("P-{number:06}");
    let (least, most) = goods.price_range;
    let whole = least + draw.below(most - least);
    let ending = *draw.one_of(&[99, 99, 95, 90, 50, 0])?;
    let price = Money::new(i64::try_from(whole * 100 + ending).ok()?, euro);
    // One in five is on sale.
    let before = draw.below(5) == 0;
    let compare_at_price = before.then(|| Money::new(price.minor() + price.minor() / 4, euro));
    // Some of those that could have variants have none: a mug in one colour.
    let option = goods.option.filter(|_| draw.below(4) != 0);
    let values = option.map_or(&[][..], |(_, values)| values);

    let variant = |place: usize, value: Option<&str>| {
        let suffix = value
            .map(|value| format!("-{}", value.replace(' ', "")))
            .unwrap_or_default();
        let grams = goods.weight_grams
            * match value {
                Some("500 g") => 2,
                Some("1 kg") => 4,
                _ => 1,
            };
        VariantInput {
            external_id: Some(format!("{external_id}{suffix}")),
            sku: Some(format!("{}-{number:06}{suffix}", initials(brand))),
            barcode: Some(gtin13(number, place)),
            price: match value {
                Some("500 g") => Money::new(price.minor() * 2 - 100, euro),
                Some("1 kg") => Money::new(price.minor() * 4 - 400, euro),
                _ => price,
            },
            compare_at_price: compare_at_price.filter(|_| !matches!(value, Some("500 g" | "1 kg"))),
            weight_grams: i32::try_from(grams).ok(),
            option_values: value.map(str::to_owned).into_iter().collect(),
            attributes: Vec::new(),
        }
    };
    let variants = if values.is_empty() {
        vec![variant(0, None)]
    } else {
        values
            .iter()
            .enumerate()
            .map(|(place, value)| variant(place, Some(value)))
            .collect()
    };

    let title = [brand, line, material, goods.noun]
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let slug = title.to_lowercase().replace(" & ", "-").replace(' ', "-");
    Some(ProductInput {
        title,
        description: Some(format!(
            "{} by {brand}. {material}, made to last and easy to mend.",
            goods.noun
        )),
        brand: Some((*brand).to_owned()),
        category: Some(goods.category.to_owned()),
        status: ProductStatus::Active,
        tags: [
            Some(material.to_lowercase()),
            before.then(|| "sale".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect(),
        options: option
            .map(|(name, values)| ProductOption {
                name: name.to_owned(),
                values: values.iter().map(|&value| value.to_owned()).collect(),
            })
            .into_iter()
            .collect(),
        attributes: vec![Attribute {
            name: "material".to_owned(),
            value: (*material).to_owned(),
        }],
        media: vec![Media {
            url: format!("https://images.example/{slug}-{number}.jpg"),
            alt: None,
            kind: MediaKind::Image,
        }],
        variants,
        external_id,
    })
}

fn initials(brand: &str) -> String {
    brand
        .chars()
        .filter(char::is_ascii_uppercase)
        .chain(
            brand
                .chars()
                .filter(char::is_ascii_lowercase)
                .map(|letter| letter.to_ascii_uppercase()),
        )
        .take(3)
        .collect()
}

/// The GTIN-13 of a product's variant: our prefix, number and place, and the check digit.
fn gtin13(number: u64, place: usize) -> String {
    let place = u64::try_from(place).unwrap_or_default() % 10;
    let digits = format!("{GTIN_PREFIX}{:09}", (number * 10 + place) % 1_000_000_000);
    format!("{digits}{}", check_digit(&digits))
}

/// The check digit of a GTIN: from the right, digits weigh three and one in turn, and the whole sums to a multiple of ten.
fn check_digit(digits: &str) -> u32 {
    let weighed = digits
        .chars()
        .rev()
        .filter_map(|digit| digit.to_digit(10))
        .zip([3, 1].into_iter().cycle());
    (10 - weighed.map(|(digit, weight)| digit * weight).sum::<u32>() % 10) % 10
}

/// A stream of numbers that a seed decides (`SplitMix64`): mixed well enough that neighbours have nothing in common.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or_default()
    }

    fn one_of<'l, T>(&mut self, list: &'l [T]) -> Option<&'l T> {
        let length = u64::try_from(list.len()).ok()?;
        list.get(usize::try_from(self.below(length)).ok()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test fails by panicking"
    )]

    use std::collections::HashSet;

    use kernel::validation::from_json_line;

    use super::*;

    #[test]
    fn every_product_is_valid_and_its_own() {
        let mut ids = HashSet::new();
        let mut barcodes = HashSet::new();
        let mut several = 0;
        for row in rows(2_000) {
            let product: ProductInput = from_json_line(&row.json).unwrap();
            several += usize::from(product.variants.len() > 1);
            for variant in &product.variants {
                let barcode = variant.barcode.clone().unwrap();
                let sum: u32 = barcode
                    .chars()
                    .rev()
                    .zip([1, 3].into_iter().cycle())
                    .map(|(digit, weight)| digit.to_digit(10).unwrap() * weight)
                    .sum();
                assert_eq!((barcode.len(), sum % 10), (13, 0), "{barcode}");
                assert!(barcodes.insert(barcode));
                assert!(
                    variant
                        .compare_at_price
                        .is_none_or(|before| before.minor() > variant.price.minor())
                );
            }
            assert!(ids.insert(product.external_id));
        }
        assert_eq!(ids.len(), 2_000);
        assert!(
            (600..1_400).contains(&several),
            "{several} of 2,000 have several variants"
        );
    }

    #[test]
    fn a_number_stands_for_the_same_product_whatever_their_number() {
        let few: Vec<_> = products(10).collect();
        let many: Vec<_> = products(100).take(10).collect();
        assert_eq!(few, many);
        assert_ne!(few[0].title, few[1].title);
    }

    #[test]
    fn check_digits_of_known_articles() {
        for (digits, check) in [
            ("400638133393", 1),
            ("978030640615", 7),
            ("501234567890", 0),
            ("03600029145", 2),
        ] {
            assert_eq!(check_digit(digits), check, "{digits}");
        }
    }
}
