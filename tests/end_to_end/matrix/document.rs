//! The running server's `/openapi.json`, as tests read it: operations that can be called by what the document says of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use reqwest::Method;
use serde_json::Value;
use tests::{Answer, new_key};

/// A thing of each kind, by the prefix of its id: `prod`, `ord` …
pub(crate) type Things = BTreeMap<String, String>;

/// What stands for the URLs of the examples among things.
pub(crate) const URL: &str = "url";

/// Characters of a typed id after its prefix.
const ID_LENGTH: usize = 26;

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The scope that it needs; none outside of `/v1`.
    pub(crate) scope: Option<String>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Option<Body>,
    /// The statuses of success.
    pub(crate) successes: Vec<u16>,
    /// The other statuses.
    pub(crate) failures: Vec<u16>,
    /// The problems that it may give, each with its status.
    pub(crate) problems: BTreeMap<String, u16>,
}

/// A parameter of an operation.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    /// `path`, `query` or `header`.
    pub(crate) place: String,
    required: bool,
    /// A legal value.
    example: Option<String>,
}

/// A request's body.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) media_type: String,
    pub(crate) example: Value,
    /// The name of its schema.
    pub(crate) schema: String,
}

/// A request that is ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Option<Value>,
}

/// Every operation of the server at `base_url`.
pub(crate) async fn operations(base_url: &str) -> Vec<Operation> {
    let document = read(base_url).await;
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .iter()
                .map(move |(method, it)| (path, method, it))
        })
        .map(|(path, method, it)| Operation::read(&document, path, method, it))
        .collect()
}

/// The whole document.
pub(crate) async fn read(base_url: &str) -> Value {
    let answer = CLIENT
        .get(format!("{base_url}/openapi.json"))
        .send()
        .await
        .unwrap();
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

/// One for all tests, which have a runtime each: so no connection outlives its request.
static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
});

impl Operation {
    fn read(document: &Value, path: &str, method: &str, operation: &Value) -> Self {
        let id = operation["operationId"].as_str().unwrap().to_owned();
        let scopes: Vec<&Value> = operation["security"][0]["oauth"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(
            scopes.len(),
            usize::from(path.starts_with("/v1/")),
            "{id} must need exactly one scope, if it is under /v1"
        );
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let body = operation["requestBody"]["content"]
            .as_object()
            .and_then(|content| content.iter().next());
        let statuses = operation["responses"]
            .as_object()
            .unwrap()
            .keys()
            .map(|status| status.parse::<u16>().unwrap());
        let (successes, failures) = statuses.partition(|status| *status < 400);
        let problems =
            operation["responses"]
                .as_object()
                .unwrap()
                .iter()
                .flat_map(|(status, response)| {
                    let examples =
                        response["content"]["application/problem+json"]["examples"].as_object();
                    examples
                        .into_iter()
                        .flatten()
                        .map(move |(slug, _)| (slug.clone(), status.parse().unwrap()))
                });
        Self {
            method: method.to_uppercase().parse().unwrap(),
            path: path.to_owned(),
            scope: scopes
                .first()
                .map(|scope| scope.as_str().unwrap().to_owned()),
            parameters: parameters
                .map(|parameter| Parameter::read(document, parameter))
                .collect(),
            body: body.map(|(media_type, media)| Body {
                media_type: media_type.clone(),
                example: media["example"].clone(),
                schema: media["schema"]["$ref"]
                    .as_str()
                    .unwrap_or_default()
                    .rsplit('/')
                    .next()
                    .unwrap()
                    .to_owned(),
            }),
            successes,
            failures,
            problems: problems.collect(),
            id,
        }
    }

    /// Whether it takes this parameter.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.parameters
            .iter()
            .any(|parameter| parameter.name == name)
    }

    /// Whether it needs this parameter.
    pub(crate) fn needs(&self, name: &str) -> bool {
        self.parameters
            .iter()
            .any(|parameter| parameter.name == name && parameter.required)
    }

    /// Whether it takes a JSON body.
    pub(crate) fn takes_json(&self) -> bool {
        self.body
            .as_ref()
            .is_some_and(|body| body.media_type == "application/json")
    }

    /// The kind of thing that its path names, if it names one.
    pub(crate) fn subject(&self) -> Option<String> {
        let in_path = self
            .parameters
            .iter()
            .find(|parameter| parameter.place == "path")?;
        Some(
            kind_of(in_path.example.as_deref().unwrap())
                .unwrap_or_else(|| panic!("{}: {} is no id", self.id, in_path.name)),
        )
    }

    /// Whether it takes the one scope that no app of these tests has, but for the owner's.
    pub(crate) fn is_for_the_merchant_alone(&self) -> bool {
        self.scope.as_deref() == Some("merchant:admin")
    }

    /// The kinds of things that a request of it names: in its path, in what its query needs and in the example of its body.
    pub(crate) fn named_kinds(&self) -> BTreeSet<String> {
        let mut texts: Vec<String> = self
            .needed()
            .filter_map(|parameter| parameter.example.clone())
            .collect();
        if let Some(body) = &self.body {
            each_text(&body.example, &mut |text| texts.push(text.to_owned()));
        }
        texts.iter().filter_map(|text| kind_of(text)).collect()
    }

    fn needed(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters
            .iter()
            .filter(|parameter| parameter.required && parameter.place != "header")
    }

    /// A request as the document's examples have it, about these things, under a new key.
    pub(crate) fn call(&self, things: &Things) -> Call {
        let mut call = Call {
            method: self.method.clone(),
            path: self.path.clone(),
            query: Vec::new(),
            headers: BTreeMap::new(),
            body: self.body.as_ref().map(|body| body.example.clone()),
        };
        for parameter in self.needed() {
            let example = parameter
                .example
                .clone()
                .unwrap_or_else(|| panic!("{}: {} has no example", self.id, parameter.name));
            let value = replaced(&example, things).unwrap_or(example);
            match parameter.place.as_str() {
                "path" => {
                    call.path = call
                        .path
                        .replace(&format!("{{{}}}", parameter.name), &value);
                }
                _ => call.query.push((parameter.name.clone(), value)),
            }
        }
        if self.needs("Idempotency-Key") {
            call.headers.insert("idempotency-key".to_owned(), new_key());
        }
        if let Some(body) = &self.body {
            call.headers
                .insert("content-type".to_owned(), body.media_type.clone());
        }
        if let Some(body) = &mut call.body {
            fill(body, things);
            // What must be unique is new each time.
            if self.problems.contains_key("external_id_taken") {
                body["externalId"] = new_key().into();
            }
        }
        call
    }
}

impl Parameter {
    fn read(document: &Value, parameter: &Value) -> Self {
        let parameter = resolved(document, parameter);
        let schema = resolved(document, &parameter["schema"]);
        let examples = [
            &parameter["example"],
            &schema["example"],
            &schema["examples"][0],
        ];
        Self {
            name: parameter["name"].as_str().unwrap().to_owned(),
            place: parameter["in"].as_str().unwrap().to_owned(),
            required: parameter["required"] == true,
            example: examples.iter().find_map(|example| match example {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            }),
        }
    }
}

/// What a `$ref` refers to.
pub(crate) fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    let Some(target) = value["$ref"].as_str() else {
        return value;
    };
    document
        .pointer(target.strip_prefix('#').unwrap())
        .unwrap_or_else(|| panic!("{target} is not in the document"))
}

impl Call {
    /// Sends it with a token or without.
    pub(crate) async fn send(&self, base_url: &str, token: Option<&str>) -> Answer {
        let mut request = CLIENT
            .request(self.method.clone(), format!("{base_url}{}", self.path))
            .query(&self.query);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        match &self.body {
            // Lines of JSON, and what is meant to be broken.
            Some(Value::String(text)) => request = request.body(text.clone()),
            Some(json) => request = request.body(json.to_string()),
            None => {}
        }
        let mut response = request
            .send()
            .await
            .unwrap_or_else(|error| panic!("{} {}: {error:?}", self.method, self.path));
        let (status, headers) = (response.status(), response.headers().clone());
        let goes_on = headers
            .get("content-type")
            .is_some_and(|kind| kind == "text/event-stream");
        let text = if goes_on {
            // It has no end: its beginning has to do.
            let chunk = response.chunk().await.unwrap().unwrap_or_default();
            String::from_utf8(chunk.to_vec()).unwrap()
        } else {
            response.text().await.unwrap()
        };
        Answer {
            status,
            headers,
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }

    /// The same with this header.
    pub(crate) fn with_header(&self, name: &str, value: &str) -> Self {
        let mut call = self.clone();
        call.headers.insert(name.to_owned(), value.to_owned());
        call
    }

    /// The same with another body.
    pub(crate) fn with_body(&self, body: Value) -> Self {
        Self {
            body: Some(body),
            ..self.clone()
        }
    }

    /// All that it says, as text: what an answer may repeat.
    pub(crate) fn text(&self) -> String {
        format!(
            "{} {:?} {}",
            self.path,
            self.query,
            self.body.as_ref().map(Value::to_string).unwrap_or_default()
        )
    }
}

/// The prefix of a typed id; `None` if the text is none.
fn kind_of(text: &str) -> Option<String> {
    let (prefix, rest) = text.rsplit_once('_')?;
    let is_id = rest.len() == ID_LENGTH
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    is_id.then(|| prefix.to_owned())
}

fn replaced(text: &str, things: &Things) -> Option<String> {
    let kind = kind_of(text)?;
    Some(
        things
            .get(&kind)
            .unwrap_or_else(|| panic!("no {kind} is at hand"))
            .clone(),
    )
}

/// Puts things in the place of the examples' ids.
pub(crate) fn fill(value: &mut Value, things: &Things) {
    match value {
        Value::String(text) => {
            if let Some(id) = replaced(text, things) {
                *text = id;
            } else if let Some(url) = things.get(URL).filter(|_| text.starts_with("https://")) {
                text.clone_from(url);
            }
        }
        Value::Array(elements) => elements
            .iter_mut()
            .for_each(|element| fill(element, things)),
        Value::Object(members) => members.values_mut().for_each(|member| fill(member, things)),
        _ => {}
    }
}

/// Visits every text in a value.
pub(crate) fn each_text(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(elements) => elements
            .iter()
            .for_each(|element| each_text(element, visit)),
        Value::Object(members) => members.values().for_each(|member| each_text(member, visit)),
        _ => {}
    }
}
