//! Names for pages. utoipa calls a page of products `Page_Product` and repeats the product in it: here it becomes a `ProductPage` of `Product`s.

use serde_json::{Map, Value, json};

const SCHEMAS: &str = "#/components/schemas/";

/// What utoipa puts before a page's rows.
const PREFIX: &str = "Page_";

/// Renames every page, and has its rows refer to their schema.
pub(super) fn name(document: &mut Value) {
    let Some(schemas) = document["components"]["schemas"].as_object_mut() else {
        return;
    };
    let named = std::mem::take(schemas)
        .into_iter()
        .map(|(name, mut schema)| match name.strip_prefix(PREFIX) {
            Some(row) => {
                schema["properties"]["data"]["items"] = json!({"$ref": format!("{SCHEMAS}{row}")});
                (format!("{row}Page"), schema)
            }
            None => (name, schema),
        });
    *schemas = named.collect::<Map<_, _>>();
    rename(document);
}

fn rename(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get_mut("$ref")
                && let Some(row) = target
                    .strip_prefix(SCHEMAS)
                    .and_then(|name| name.strip_prefix(PREFIX))
            {
                *target = format!("{SCHEMAS}{row}Page");
            }
            members.values_mut().for_each(rename);
        }
        Value::Array(elements) => elements.iter_mut().for_each(rename),
        _ => {}
    }
}
