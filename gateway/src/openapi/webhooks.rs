//! The `webhooks` section: what endpoints are sent.

use serde_json::{Map, Value, json};

/// Event types that this version sends: the type, the schema of its `data`, and what happened.
const EVENTS: &[(&str, &str, &str)] = &[
    ("product.created", "Product", "A product is new."),
    ("product.updated", "Product", "A product has changed."),
    ("product.archived", "Product", "A product was archived."),
    ("variant.price_changed", "Variant", "A variant has another price."),
    ("inventory.level_changed", "InventoryLevel", "A stock level has changed."),
    ("inventory.exhausted", "InventoryLevel", "Nothing is available any more."),
    ("inventory.restocked", "InventoryLevel", "Something is available again."),
    ("order.placed", "Order", "An order was placed, and its stock is reserved."),
    ("order.partially_fulfilled", "Order", "A part of an order was shipped."),
    ("order.fulfilled", "Order", "All of an order was shipped."),
    ("order.cancelled", "Order", "An order was cancelled, and its stock released."),
    ("fulfillment.created", "Fulfillment", "A shipment was made."),
    ("fulfillment.tracking_updated", "Fulfillment", "A shipment has other tracking."),
    ("catalog.import_completed", "CatalogImport", "A catalog import has read its last line."),
    ("webhook_endpoint.disabled", "WebhookEndpoint", "An endpoint was switched off."),
    ("webhook_endpoint.enabled", "WebhookEndpoint", "An endpoint was switched on."),
];

/// Adds the section, and the schema of the envelope.
pub(super) fn add(document: &mut Value) {
    let mut webhooks = Map::new();
    for (kind, schema, what) in EVENTS {
        webhooks.insert((*kind).to_owned(), json!({"post": {
            "operationId": format!("on{}", camel(kind)),
            "summary": what,
            "description": "Signed as Standard Webhooks has it: `webhook-id`, `webhook-timestamp`, `webhook-signature`. Answer with any 2xx within 15 s; \
                anything else is retried for about three days. Deliveries may repeat and overtake each other: `id` tells repeats, `sequence` tells gaps.",
            "requestBody": {"required": true, "content": {"application/json": {"schema": {
                "allOf": [
                    {"$ref": "#/components/schemas/EventEnvelope"},
                    {"type": "object", "properties": {"data": {"$ref": format!("#/components/schemas/{schema}")}}},
                ],
            }}}},
            "responses": {"2XX": {"description": "Received."}, "410": {"description": "Never send anything here again: the endpoint is disabled."}},
            "security": [],
        }}));
    }
    document["webhooks"] = Value::Object(webhooks);
}

fn camel(kind: &str) -> String {
    kind.split(['.', '_'])
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        })
        .collect()
}
