//! An example for every body that has none of its own, made from its schema.

use serde_json::{Map, Value, json};

use super::operations_of;

/// Schemas nest this deep at most; beyond that they go round in circles.
const DEPTH_MAX: usize = 12;

/// Adds the examples.
pub(super) fn add(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    for section in ["paths", "webhooks"] {
        for (_, _, operation) in operations_of(document, section) {
            add_to(operation, &schemas);
        }
    }
}

fn add_to(operation: &mut Map<String, Value>, schemas: &Value) {
    let mut contents: Vec<&mut Map<String, Value>> = Vec::new();
    for (key, part) in operation.iter_mut() {
        match key.as_str() {
            "requestBody" => {
                contents.extend(part.get_mut("content").and_then(Value::as_object_mut));
            }
            "responses" => contents.extend(
                part.as_object_mut()
                    .into_iter()
                    .flatten()
                    .filter_map(|(_, response)| response.get_mut("content")?.as_object_mut()),
            ),
            _ => {}
        }
    }
    for media in contents
        .into_iter()
        .flatten()
        .filter_map(|(_, media)| media.as_object_mut())
    {
        if media.contains_key("example") || media.contains_key("examples") {
            continue;
        }
        if let Some(schema) = media.get("schema").cloned() {
            media.insert("example".to_owned(), of(&schema, "", schemas, 0));
        }
    }
}

/// An example of a schema; `name` is the property that it is the value of.
fn of(schema: &Value, name: &str, schemas: &Value, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(example) = schema.get("examples").and_then(|examples| examples.get(0)) {
        return example.clone();
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let target = target.rsplit('/').next().unwrap_or_default();
        return of(&schemas[target], name, schemas, depth + 1);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(options) = schema.get(choice).and_then(Value::as_array) {
            let first = options.iter().find(|option| option["type"] != "null");
            return first.map_or(Value::Null, |option| of(option, name, schemas, depth + 1));
        }
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        let mut merged = Map::new();
        for part in parts {
            if let Value::Object(members) = of(part, name, schemas, depth + 1) {
                merged.extend(members);
            }
            merged.retain(|name, _| part["properties"][name.as_str()] != json!(false));
        }
        return Value::Object(merged);
    }
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    if let Some(by_name) = by_name(name) {
        return by_name;
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds
            .iter()
            .find_map(|kind| kind.as_str().filter(|kind| *kind != "null")),
        kind => kind.as_str(),
    };
    match kind {
        Some("object") => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            Value::Object(
                properties
                    .filter(|(property, member)| !is_absent(schema, property, member))
                    .map(|(property, schema)| {
                        (property.clone(), of(schema, property, schemas, depth + 1))
                    })
                    .collect(),
            )
        }
        Some("array") => json!([of(&schema["items"], name, schemas, depth + 1)]),
        Some("integer") => schema
            .get("minimum")
            .filter(|minimum| *minimum != 0)
            .cloned()
            .unwrap_or_else(|| json!(1)),
        Some("number") => json!(1),
        Some("boolean") => json!(true),
        Some("string") if schema["format"] == "date-time" => json!("2026-11-01T12:00:00Z"),
        Some("string") if schema["format"] == "uri" => json!("https://example.com/stoa"),
        Some("string") => json!("text"),
        _ => json!({}),
    }
}

/// Whether a property is mostly not there: it may be left out, and that means `false`.
fn is_absent(schema: &Value, property: &str, member: &Value) -> bool {
    let required = schema["required"].as_array();
    let is_required = required.is_some_and(|names| names.iter().any(|name| name == property));
    !is_required && member["default"] == json!(false)
}

/// What a property of this name looks like in a merchant's day.
fn by_name(name: &str) -> Option<Value> {
    Some(match name {
        "externalId" => json!("SHIRT-1042"),
        "sku" => json!("SHIRT-1042-RED-M"),
        "barcode" => json!("4006381333931"),
        "title" => json!("Linen shirt"),
        "description" => json!("A shirt of washed linen."),
        "brand" => json!("Halden"),
        "category" => json!("Apparel > Shirts"),
        "eventTypes" => json!(["order.placed"]),
        "url" => json!("https://erp.example.com/stoa-webhooks"),
        "carrier" => json!("DHL"),
        "trackingNumber" => json!("00340434161094042557"),
        "trackingUrl" => json!("https://track.example.com/00340434161094042557"),
        "email" => json!("ada@example.com"),
        "phone" => json!("+49 30 901820"),
        "line1" | "address1" => json!("Unter den Linden 77"),
        "company" => json!("Analytical Engines Ltd"),
        "line2" => json!("Second floor"),
        "region" => json!("Greater London"),
        "alt" => json!("A folded linen shirt"),
        "tags" => json!(["summer", "linen"]),
        "optionValues" => json!(["M"]),
        "label" => json!("nightly sync"),
        "answerExcerpt" => json!("upstream timed out"),
        "city" => json!("Berlin"),
        "postalCode" => json!("10117"),
        "country" => json!("DE"),
        "secret" => json!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        "nextCursor" => json!("WyJTSElSVC0xMDQyIl0"),
        "reason" => json!("changed my mind"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_when_it_is_false_is_in_no_example() {
        let document = crate::openapi::document();
        let schemas = &document["components"]["schemas"];
        assert_eq!(
            schemas["EventEnvelope"]["properties"]["test"]["default"],
            json!(false)
        );
        let example = of(&schemas["EventEnvelope"], "", schemas, 0);
        assert!(example["sequence"].is_number());
        assert_eq!(example.get("test"), None);
    }
}
