//! The OpenAPI 3.1 document: made from the handlers, completed here.
//!
//! A handler's annotation says what is its own: path, scope, input, output and the refusals of its domain function. What follows from that for
//! every operation alike is added here: the API version's header, the errors that authentication, bodies, keys, versions and lists can give, an
//! example for each body, and the `webhooks` section. So the document can't forget an error that the edge gives.

#![allow(
    clippy::indexing_slicing,
    reason = "documents are JSON objects: what is read and missing is null, what is written and missing is added"
)]

use kernel::problem::ProblemType;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::{edge::fault::ProblemBody, rest};

mod errors;
mod examples;
mod pages;
mod webhooks;

pub(crate) use webhooks::{example_event, is_event_type};

/// What is no operation's own.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Stoa",
        description = "The merchant integration gateway: catalogs in, orders and stock out, every change announced.\n\n\
            Every POST and PATCH under `/v1` takes an `Idempotency-Key`: a retry with the same key and input changes nothing and gives the same answer, \
            marked `Idempotent-Replayed: true`. Lists page by `cursor`. Errors are `application/problem+json`; docs/errors.md lists their kinds. \
            GraphQL, at `/graphql`, describes itself: by introspection and in graphql/schema.graphql.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/", description = "This server")),
    tags(
        (name = "Products", description = "Products and their variants, kept by the merchant's own ids."),
        (name = "Catalog imports", description = "Whole catalogs, streamed in; a result per line."),
        (name = "Locations", description = "Places where stock lies."),
        (name = "Inventory", description = "Stock levels and the ledger of their changes."),
        (name = "Orders", description = "Orders, from placed to fulfilled or cancelled."),
        (name = "Fulfillments", description = "Shipments and their tracking."),
        (name = "Webhook endpoints", description = "Who is told of what, and the stream of each."),
        (name = "App webhook endpoints", description = "Where an app is told of what happens at all merchants that have installed it."),
        (name = "Dead letters", description = "Deliveries that were given up on, to be replayed."),
        (name = "Events", description = "The merchant's whole feed."),
        (name = "Audit", description = "Who did what that matters for security, and from where."),
        (name = "OAuth", description = "Tokens, keys and metadata of the authorization server."),
        (name = "Service", description = "Health and descriptions of the service itself."),
    ),
    components(schemas(ProblemBody, kernel::problem::FieldError, auth::grant::Grant)),
)]
struct Base;

/// The document of this binary.
pub fn document() -> Value {
    let api = rest::describe(Base::openapi());
    let mut document = serde_json::to_value(api).unwrap_or_default();
    document["openapi"] = json!("3.1.0");
    document["components"]["securitySchemes"] = security_scheme();
    pages::name(&mut document);
    webhooks::add(&mut document);
    add_version_header(&mut document);
    errors::add(&mut document);
    examples::add(&mut document);
    document
}

/// Every operation takes the header by which a client asks for an API version.
fn add_version_header(document: &mut Value) {
    document["components"]["parameters"] = json!({"StoaVersion": {
        "name": "Stoa-Version",
        "in": "header",
        "required": false,
        "description": "The API version that the client was written for; the one of this document if left out. Another one is refused.",
        "schema": {"type": "string", "example": crate::edge::observe::API_VERSION},
    }});
    for (_, _, operation) in operations(document) {
        let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
        if let Some(parameters) = parameters.as_array_mut() {
            parameters.push(json!({"$ref": "#/components/parameters/StoaVersion"}));
        }
    }
}

fn security_scheme() -> Value {
    let scopes: Map<String, Value> = kernel::scope::Scope::ALL
        .iter()
        .map(|scope| (scope.name().to_owned(), json!(scope.words())))
        .collect();
    json!({
        "oauth": {
            "type": "oauth2",
            "description": "A client-credentials token names its merchant by `resource` (RFC 8707).",
            "flows": {"clientCredentials": {"tokenUrl": "/oauth/token", "scopes": scopes}},
        },
        (auth::http::CLIENT_SECRET_BASIC): {
            "type": "http",
            "scheme": "basic",
            "description": "The client id as user name and the client secret as password (RFC 6749, section 2.3.1).",
        },
    })
}

/// Every operation of a document: its path, its method, and itself.
fn operations(
    document: &mut Value,
) -> impl Iterator<Item = (String, String, &mut Map<String, Value>)> {
    operations_of(document, "paths")
}

/// The same for one section: `paths` or `webhooks`.
fn operations_of<'d>(
    document: &'d mut Value,
    section: &str,
) -> impl Iterator<Item = (String, String, &'d mut Map<String, Value>)> + use<'d> {
    let paths = document.get_mut(section).and_then(Value::as_object_mut);
    paths.into_iter().flatten().flat_map(|(path, item)| {
        let methods = item.as_object_mut().into_iter().flatten();
        methods.filter_map(|(method, operation)| {
            Some((path.clone(), method.clone(), operation.as_object_mut()?))
        })
    })
}

/// The problem type of a slug.
fn problem_type(slug: &str) -> Option<&'static ProblemType> {
    crate::problem_types().find(|kind| kind.slug == slug)
}
