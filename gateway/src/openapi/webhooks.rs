//! The `webhooks` section: what endpoints are sent.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// Event types that this version sends: the type, the schema of its `data`, and what happened. A test compares them with the types that the code
/// appends.
const EVENTS: &[(&str, Option<&str>, &str)] = &[
    ("product.created", Some("Product"), "A product is new."),
    ("product.updated", Some("Product"), "A product has changed."),
    (
        "product.archived",
        Some("Product"),
        "A product was archived.",
    ),
    (
        "variant.price_changed",
        Some("Variant"),
        "A variant has another price.",
    ),
    (
        "catalog.import_completed",
        Some("CatalogImport"),
        "A catalog import has read its last line.",
    ),
    (
        "inventory.level_changed",
        Some("InventoryLevel"),
        "A stock level has changed.",
    ),
    (
        "inventory.exhausted",
        Some("InventoryLevel"),
        "Nothing is available any more.",
    ),
    (
        "inventory.restocked",
        Some("InventoryLevel"),
        "Something is available again.",
    ),
    (
        "order.placed",
        Some("Order"),
        "An order was placed, and its stock is reserved.",
    ),
    (
        "order.partially_fulfilled",
        Some("Order"),
        "A part of an order was shipped.",
    ),
    (
        "order.fulfilled",
        Some("Order"),
        "All of an order was shipped.",
    ),
    (
        "order.cancelled",
        Some("Order"),
        "An order was cancelled, and its stock released.",
    ),
    (
        "fulfillment.shipped",
        Some("Fulfillment"),
        "A shipment has left its location.",
    ),
    (
        "fulfillment.tracking_updated",
        Some("Fulfillment"),
        "A shipment has other tracking.",
    ),
    (
        "grant.created",
        Some("Grant"),
        "An app was granted something.",
    ),
    (
        "grant.revoked",
        Some("Grant"),
        "An app's grant was taken back.",
    ),
    (
        "grant.expiring",
        Some("Grant"),
        "An app's grant ends within 72 hours; one that was given for less, within the last quarter of its time. Once for each end.",
    ),
    (
        "webhook_endpoint.failing",
        Some("WebhookEndpoint"),
        "An endpoint takes nothing that it is sent. It is switched off if that goes on.",
    ),
    (
        "webhook_endpoint.disabled",
        Some("WebhookEndpoint"),
        "An endpoint was switched off.",
    ),
    (
        "webhook_endpoint.enabled",
        Some("WebhookEndpoint"),
        "An endpoint was switched on.",
    ),
    (
        webhooks::event::PING,
        Some("WebhookEndpoint"),
        "Somebody asked for a test event to this endpoint.",
    ),
    (
        webhooks::event::WITHHELD,
        None,
        "Something happened that the endpoint's grant may no longer see. Its number is all that is told.",
    ),
];

/// Whether this version sends events of a type, or some that a pattern such as `order.*` or `*` matches.
pub(crate) fn is_event_type(pattern: &str) -> bool {
    EVENTS
        .iter()
        .any(|(known, ..)| match pattern.strip_suffix('*') {
            Some(beginning) => known.starts_with(beginning),
            None => *known == pattern,
        })
}

/// What an event of a type looks like, as the document's example has it; `None` for a type that has no data.
pub(crate) fn example_event(kind: &str) -> Option<webhooks::event::TestData> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(super::document);
    let event = DOCUMENT["webhooks"].get(kind)?;
    let example = event.pointer("/post/requestBody/content/application~1json/example")?;
    let member = |name: &str| example.get(name).cloned();
    Some(webhooks::event::TestData {
        kind: kind.to_owned(),
        resource: serde_json::from_value(member("resource")?).ok()?,
        data: member("data")?,
    })
}

/// Adds the section.
pub(super) fn add(document: &mut Value) {
    let webhooks: Map<String, Value> = EVENTS
        .iter()
        .map(|(kind, schema, what)| {
            (
                (*kind).to_owned(),
                json!({"post": operation(kind, *schema, what)}),
            )
        })
        .collect();
    document["webhooks"] = Value::Object(webhooks);
}

fn operation(kind: &str, schema: Option<&str>, what: &str) -> Value {
    let data = match schema {
        Some(schema) => json!({
            "data": {"$ref": format!("#/components/schemas/{schema}")},
            "resource": {"allOf": [
                {"$ref": "#/components/schemas/EventResource"},
                {"type": "object", "properties": {"type": {"const": snake(schema)}}},
            ]},
        }),
        // Nothing of it is told.
        None => json!({"data": false, "resource": false, "requestId": false}),
    };
    let mut properties =
        json!({"type": {"const": kind}, "sequence": {"type": "integer", "minimum": 1}});
    if let (Some(properties), Value::Object(data)) = (properties.as_object_mut(), data) {
        properties.extend(data);
    }
    json!({
        "operationId": format!("on{}", camel(kind)),
        "summary": what,
        "description": "Signed as Standard Webhooks has it. Answer with any 2xx within 15 s; anything else is retried for about three days. Deliveries may \
            repeat and overtake each other: `id` tells repeats, `sequence` tells gaps.",
        "tags": ["Webhook endpoints"],
        "parameters": [
            header("webhook-id", "The event's id, the same for every attempt.", "evt_01jd3x5k8vfm7b2c9q0r4t6w8y"),
            header("webhook-timestamp", "When this attempt was signed, in seconds since 1970.", "1793534400"),
            header("webhook-signature", "`v1,` and the HMAC-SHA256 of id, timestamp and body in base64; several with a space between.",
                "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="),
        ],
        "requestBody": {"required": true, "content": {"application/json": {"schema": {
            "allOf": [{"$ref": "#/components/schemas/EventEnvelope"}, {"type": "object", "properties": properties}],
        }}}},
        "responses": {
            "2XX": {"description": "Received."},
            "410": {"description": "Never send anything here again: the endpoint is disabled."},
        },
        "security": [],
    })
}

fn header(name: &str, description: &str, example: &str) -> Value {
    json!({"name": name, "in": "header", "required": true, "description": description, "schema": {"type": "string", "example": example}})
}

fn camel(kind: &str) -> String {
    kind.split(['.', '_'])
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_uppercase().chain(letters).collect()
            })
        })
        .collect()
}

/// What an event's `resource.type` calls the resource of a schema.
fn snake(schema: &str) -> String {
    schema.chars().fold(String::new(), |mut name, letter| {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
        name
    })
}
