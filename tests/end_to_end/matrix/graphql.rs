//! The same for GraphQL: every root field that introspection names, with every field below it.

use std::collections::BTreeMap;

use graphql::{ROOT_FIELDS, RootKind};
use reqwest::Method;
use serde_json::{Map, Value, json};
use tests::{Answer, new_key};

use super::{
    assert_hides,
    document::{Call, Things, fill},
    secrets, world,
    world::{World, every_apps_scope, every_scope, every_scope_but, text},
};

/// Fields are followed this deep: to `order.lines.product.variants.price.amount`, behind the nodes and edges of a connection.
const DEPTH_MAX: usize = 9;

/// Rows of a list.
const FIRST: u32 = 2;

const INTROSPECTION: &str = "{ __schema {
    queryType { fields { name args { name type { ...t } } type { ...t } } }
    mutationType { fields { name args { name type { ...t } } type { ...t } } }
    types { kind name fields { name args { name type { ...t } } type { ...t } } }
} }
fragment t on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }";

/// A root field, with all that is needed to ask for it.
pub(super) struct Root {
    name: String,
    kind: RootKind,
    document: String,
    /// The kind of thing that its `id` names.
    subject: Option<String>,
    /// The schema of its `input`.
    input: Option<String>,
    variables: Vec<String>,
}

/// Any query, for whoever wants to know whether a token is taken at all.
pub(super) async fn anything(world: &World, token: &str) -> Answer {
    ask(world, "{ __typename }", Value::Null, Some(token)).await
}

async fn ask(world: &World, document: &str, variables: Value, token: Option<&str>) -> Answer {
    let call = Call {
        method: Method::POST,
        path: "/graphql".to_owned(),
        query: Vec::new(),
        headers: BTreeMap::from([("content-type".to_owned(), "application/json".to_owned())]),
        body: Some(json!({"query": document, "variables": variables})),
    };
    call.send(&world.stoa.base_url(), token).await
}

/// Every root field, as introspection names them.
async fn roots(world: &World) -> Vec<Root> {
    let answer = ask(
        world,
        INTROSPECTION,
        Value::Null,
        Some(&world.owner.token()),
    )
    .await;
    let schema = answer.expect(200)["data"]["__schema"].clone();
    let types: BTreeMap<String, Value> = schema["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| (text(kind, "name"), kind.clone()))
        .collect();
    [
        ("queryType", RootKind::Query),
        ("mutationType", RootKind::Mutation),
    ]
    .iter()
    .flat_map(|(root, kind)| {
        schema[root]["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| (*kind, field))
    })
    .map(|(kind, field)| Root::new(kind, field, &types))
    .collect()
}

impl Root {
    fn new(kind: RootKind, field: &Value, types: &BTreeMap<String, Value>) -> Self {
        let name = text(field, "name");
        let arguments: Vec<(String, &Value)> = field["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|argument| (text(argument, "name"), &argument["type"]))
            .collect();
        let asked: Vec<_> = arguments
            .iter()
            .filter(|(name, kind)| kind["kind"] == "NON_NULL" || name == "first")
            .collect();
        let declared: Vec<String> = asked
            .iter()
            .map(|(name, kind)| format!("${name}: {}", spelled(kind)))
            .collect();
        let passed: Vec<String> = asked
            .iter()
            .map(|(name, _)| format!("{name}: ${name}"))
            .collect();
        let operation = match kind {
            RootKind::Query => "query",
            RootKind::Mutation => "mutation",
        };
        let selection = selection(&named(&field["type"]), types, 1);
        let argument_of = |wanted: &str| {
            asked
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, kind)| named(kind))
        };
        Self {
            kind,
            document: format!(
                "{operation}({}) {{ it: {name}({}) {selection} }}",
                declared.join(", "),
                passed.join(", ")
            ),
            // `orderCancel(id:)` and `order(id:)` are about an order.
            subject: argument_of("id").map(|_| {
                if name.starts_with("product") {
                    "prod"
                } else {
                    "ord"
                }
                .to_owned()
            }),
            input: argument_of("input"),
            variables: asked.iter().map(|(name, _)| name.clone()).collect(),
            name,
        }
    }

    async fn things(&self, world: &World) -> Things {
        let mut things = Things::from([
            ("var".to_owned(), world.make("var").await),
            ("loc".to_owned(), world.make("loc").await),
        ]);
        if let Some(kind) = &self.subject {
            things.insert(kind.clone(), world.make(kind).await);
        }
        things
    }

    /// Values for its arguments: ids of things, and as its input the example of the same input in REST.
    fn values(&self, world: &World, things: &Things) -> Value {
        let values = self.variables.iter().map(|variable| {
            let value = match variable.as_str() {
                "id" => json!(things[self.subject.as_ref().unwrap()]),
                "first" => json!(FIRST),
                "idempotencyKey" => json!(new_key()),
                "input" => {
                    let schema = self.input.as_deref().unwrap();
                    let rest = world
                        .operations
                        .iter()
                        .filter_map(|operation| operation.body.as_ref());
                    let mut rest = rest.filter(|body| body.schema == schema);
                    let mut example = rest
                        .next()
                        .unwrap_or_else(|| panic!("no REST operation takes a {schema}"))
                        .example
                        .clone();
                    fill(&mut example, things);
                    example["externalId"] = new_key().into();
                    example
                }
                other => panic!("{}: no value is known for the argument {other}", self.name),
            };
            (variable.clone(), value)
        });
        Value::Object(values.collect::<Map<_, _>>())
    }

    async fn ask(&self, world: &World, things: &Things, token: &str) -> (Value, Answer) {
        let values = self.values(world, things);
        let answer = ask(world, &self.document, values.clone(), Some(token)).await;
        assert_eq!(answer.status, 200, "{}: {}", self.name, answer.text);
        (values, answer)
    }
}

/// The name within lists and non-nulls.
fn named(kind: &Value) -> String {
    if kind["ofType"].is_object() {
        named(&kind["ofType"])
    } else {
        text(kind, "name")
    }
}

fn spelled(kind: &Value) -> String {
    match kind["kind"].as_str().unwrap() {
        "NON_NULL" => format!("{}!", spelled(&kind["ofType"])),
        "LIST" => format!("[{}]", spelled(&kind["ofType"])),
        _ => text(kind, "name"),
    }
}

/// Every field of a type, and theirs.
fn selection(name: &str, types: &BTreeMap<String, Value>, depth: usize) -> String {
    let fields = types[name]["fields"].as_array().unwrap();
    let fields = fields
        .iter()
        .filter(|field| field["args"].as_array().unwrap().is_empty());
    let selected: Vec<String> = fields
        .filter_map(|field| {
            let below = named(&field["type"]);
            // The nodes are those of the edges.
            if name.ends_with("Connection") && field["name"] == "nodes" {
                return None;
            }
            match types[&below]["kind"].as_str().unwrap() {
                "OBJECT" if depth >= DEPTH_MAX => None,
                "OBJECT" => Some(format!(
                    "{} {}",
                    text(field, "name"),
                    selection(&below, types, depth + 1)
                )),
                _ => Some(text(field, "name")),
            }
        })
        .collect();
    format!("{{ {} }}", selected.join(" "))
}

/// The code of a root field's error.
fn code(answer: &Answer) -> &str {
    answer.json["errors"][0]["extensions"]["code"]
        .as_str()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_root_field_gives_its_owner_all_that_is_below_it() {
    let world = world().await;
    let roots = roots(&world).await;
    let mut named: Vec<(&str, RootKind)> = roots
        .iter()
        .map(|root| (root.name.as_str(), root.kind))
        .collect();
    let mut listed: Vec<(&str, RootKind)> = ROOT_FIELDS
        .iter()
        .map(|field| (field.name, field.kind))
        .collect();
    named.sort_unstable_by_key(|(name, _)| *name);
    listed.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(
        named, listed,
        "graphql::ROOT_FIELDS must name every root field"
    );
    for root in &roots {
        let (_, answer) = root
            .ask(&world, &root.things(&world).await, &world.owner.token())
            .await;
        assert!(
            answer.json["errors"].is_null() && answer.json["data"]["it"].is_object(),
            "{}: {}",
            root.name,
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_field_without_token_or_scope_gives_nothing() {
    let world = world().await;
    for root in roots(&world).await {
        let things = root.things(&world).await;
        let answer = ask(&world, &root.document, root.values(&world, &things), None).await;
        assert_eq!(answer.status, 401, "{}: {}", root.name, answer.text);
        assert!(
            answer.headers.contains_key("www-authenticate"),
            "{}",
            root.name
        );

        let scope = ROOT_FIELDS
            .iter()
            .find(|field| field.name == root.name)
            .unwrap()
            .scope;
        let token = world.narrowed(&every_scope_but(scope.name())).await;
        let (_, answer) = root.ask(&world, &things, &token).await;
        assert_eq!(
            code(&answer),
            "insufficient_scope",
            "{}: {}",
            root.name,
            answer.text
        );
        assert_eq!(
            answer.json["errors"][0]["extensions"]["requiredScope"],
            scope.name(),
            "{}",
            root.name
        );
        assert!(
            answer.json["data"]["it"].is_null(),
            "{}: {}",
            root.name,
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_field_shows_another_merchant_nothing() {
    let world = world().await;
    let merchant = world.stoa.merchant();
    let stranger = world
        .stoa
        .client_of(&merchant, &every_scope(), &["--personal-data"])
        .await;
    for root in roots(&world).await {
        let things = root.things(&world).await;
        let (said, answer) = root.ask(&world, &things, &stranger.token()).await;
        if root.subject.is_some() {
            assert_eq!(code(&answer), "not_found", "{}: {}", root.name, answer.text);
            assert!(
                answer.json["data"]["it"].is_null(),
                "{}: {}",
                root.name,
                answer.text
            );
        }
        let mut hidden = secrets(&things);
        hidden.extend(world.personal_texts());
        assert_hides(&root.name, &said.to_string(), &answer, &hidden);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_field_shows_nothing_of_another_location_and_no_person_to_those_who_may_not_see_one()
{
    let world = world().await;
    let merchant = &world.owner.credentials.merchant;
    let arguments = ["--location", &world.other_location, "--personal-data"];
    let elsewhere = world
        .stoa
        .client_of(merchant, &every_apps_scope(), &arguments)
        .await;
    let ungranted = world
        .stoa
        .client_of(merchant, &every_apps_scope(), &[])
        .await;
    let without_scope = world.narrowed(&every_scope_but("orders.pii:read")).await;
    for root in roots(&world).await {
        let things = root.things(&world).await;
        let (said, answer) = root.ask(&world, &things, &elsewhere.token()).await;
        if root.subject.as_deref() == Some("ord") {
            assert_eq!(code(&answer), "not_found", "{}: {}", root.name, answer.text);
        }
        let mut hidden = world.personal_texts();
        hidden.insert(world.location.clone());
        hidden.extend(things.get("ord").cloned());
        assert_hides(&root.name, &said.to_string(), &answer, &hidden);

        for token in [&ungranted.token(), &without_scope] {
            let things = root.things(&world).await;
            let (_, answer) = root.ask(&world, &things, token).await;
            assert!(
                answer.json["data"]["it"].is_object(),
                "{}: {}",
                root.name,
                answer.text
            );
            assert_hides(&root.name, "", &answer, &world.personal_texts());
        }
    }
}
