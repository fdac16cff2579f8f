//! A client of the API.

use std::sync::{Arc, Mutex};

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

use crate::stoa::ANSWER_TIMEOUT;

/// What an app knows of itself.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Where the API is.
    pub base_url: String,
    /// The merchant to act for.
    pub merchant: String,
    /// The app.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// Its grant.
    pub grant: String,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; null if it is none.
    pub json: Value,
    /// The body.
    pub text: String,
}

impl Answer {
    /// The slug of a problem: `insufficient_stock`.
    pub fn slug(&self) -> &str {
        self.json["type"]
            .as_str()
            .and_then(|kind| kind.strip_prefix("urn:stoa:problem:"))
            .unwrap_or_default()
    }

    /// Whether it is the kept answer of an earlier request.
    pub fn is_replayed(&self) -> bool {
        self.headers
            .get("idempotent-replayed")
            .is_some_and(|value| value == "true")
    }

    /// The answer, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json
    }
}

/// A client with a token.
#[derive(Debug, Clone)]
pub struct Client {
    /// Who it is.
    pub credentials: Credentials,
    /// What the service calls itself, which is where the first process of it is.
    issuer: String,
    http: reqwest::Client,
    token: Arc<Mutex<String>>,
}

impl Client {
    /// Gets a token.
    pub async fn new(credentials: Credentials) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_TIMEOUT)
            .build()
            .unwrap();
        let client = Self {
            issuer: credentials.base_url.clone(),
            credentials,
            http,
            token: Arc::default(),
        };
        client.refresh().await;
        client
    }

    /// Gets a new token.
    pub async fn refresh(&self) {
        let answer = self.request_token(&[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let token = answer.json["access_token"].as_str().unwrap();
        token.clone_into(&mut self.token.lock().unwrap());
    }

    /// The token endpoint's answer, with further parameters.
    pub async fn request_token(&self, more: &[(&str, &str)]) -> Answer {
        let resource = self.resource();
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("resource", &resource),
        ];
        form.extend(more);
        let request = self
            .http
            .post(format!("{}/oauth/token", self.credentials.base_url))
            .basic_auth(
                &self.credentials.client_id,
                Some(&self.credentials.client_secret),
            )
            .form(&form);
        read(request.send().await.unwrap()).await
    }

    /// What names the merchant to the token endpoint.
    pub fn resource(&self) -> String {
        format!("{}/merchants/{}", self.issuer, self.credentials.merchant)
    }

    /// The same client, at another process of the same service.
    #[must_use]
    pub fn at(&self, base_url: &str) -> Self {
        Self {
            credentials: Credentials {
                base_url: base_url.to_owned(),
                ..self.credentials.clone()
            },
            ..self.clone()
        }
    }

    /// The access token.
    pub fn token(&self) -> String {
        self.token.lock().unwrap().clone()
    }

    /// A request with the token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.credentials.base_url))
            .bearer_auth(self.token())
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        read(self.request(Method::GET, path).send().await.unwrap()).await
    }

    /// POST under a new key.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with_key(path, body, &new_key()).await
    }

    /// POST under this key.
    pub async fn post_with_key(&self, path: &str, body: &Value, key: &str) -> Answer {
        self.try_post(path, body, key).await.unwrap()
    }

    /// POST under this key; an error if there is no answer.
    pub async fn try_post(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<Answer, reqwest::Error> {
        let answer = self
            .request(Method::POST, path)
            .header("idempotency-key", key)
            .json(body)
            .send()
            .await?;
        try_read(answer).await
    }

    /// POST under this key until there is an answer, as every client is told to: again after a broken connection, a 503, or a twin still at work.
    pub async fn post_until_answered(&self, path: &str, body: &Value, key: &str) -> Answer {
        crate::wait_for("an answer", async || {
            let answer = self.try_post(path, body, key).await.ok()?;
            let unanswered = answer.status == 503 || answer.slug() == "idempotency_key_in_progress";
            (!unanswered).then_some(answer)
        })
        .await
    }

    /// PATCH under a new key.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        let request = self
            .request(Method::PATCH, path)
            .header("idempotency-key", new_key())
            .json(body);
        read(request.send().await.unwrap()).await
    }

    /// GET; an error if there is no answer.
    pub async fn try_get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        try_read(self.request(Method::GET, path).send().await?).await
    }

    /// Every row of a list, page by page.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let sign = if path.contains('?') { '&' } else { '?' };
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self
                .get(&format!("{path}{sign}limit=250{cursor}"))
                .await
                .expect(200);
            rows.extend(page["data"].as_array().unwrap().iter().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }

    /// The merchant's whole feed, as far as it has come.
    pub async fn feed(&self) -> Vec<Value> {
        let mut events = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self
                .get(&format!("/v1/events?limit=250{cursor}"))
                .await
                .expect(200);
            events.extend(page["data"].as_array().unwrap().iter().cloned());
            if page["hasMore"] == false {
                return events;
            }
            cursor = format!("&cursor={}", page["nextCursor"].as_str().unwrap());
        }
    }

    /// Places an order of one line, and gives it.
    pub async fn place(&self, variant: &str, quantity: i64) -> Value {
        self.post("/v1/orders", &crate::order_of(variant, quantity))
            .await
            .expect(201)
    }

    /// The only level of a variant.
    pub async fn level(&self, variant: &str) -> Value {
        let mut levels = self
            .all(&format!("/v1/inventory-levels?variantId={variant}"))
            .await;
        assert_eq!(levels.len(), 1, "{levels:?}");
        levels.remove(0)
    }

    /// Fails unless the ledger of a variant's only level sums to it, without a gap in its numbers. Gives the level.
    pub async fn checked_ledger(&self, variant: &str) -> Value {
        let level = self.level(variant).await;
        let location = level["locationId"].as_str().unwrap();
        let movements = self
            .all(&format!(
                "/v1/inventory-movements?variantId={variant}&locationId={location}"
            ))
            .await;
        let sum = |name: &str| {
            movements
                .iter()
                .map(|movement| movement[name].as_i64().unwrap())
                .sum::<i64>()
        };
        assert_eq!(level["onHand"], sum("onHandDelta"), "{level}");
        assert_eq!(level["reserved"], sum("reservedDelta"), "{level}");
        let versions: Vec<_> = movements
            .iter()
            .map(|movement| movement["levelVersion"].as_i64().unwrap())
            .collect();
        assert!(
            versions
                .iter()
                .copied()
                .eq(1..=level["version"].as_i64().unwrap()),
            "{versions:?} of {level}"
        );
        level
    }

    /// A GraphQL request.
    pub async fn graphql(&self, query: &str, variables: Value) -> Answer {
        let body = json!({"query": query, "variables": variables});
        read(
            self.request(Method::POST, "/graphql")
                .json(&body)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// Makes a location, and gives its id.
    pub async fn location(&self, external_id: &str) -> String {
        let location = json!({"externalId": external_id, "name": external_id});
        let location = self.post("/v1/locations", &location).await.expect(200);
        location["id"].as_str().unwrap().to_owned()
    }

    /// Makes a product with one variant, and gives the variant's id.
    pub async fn product(&self, external_id: &str, price: &str) -> String {
        let price = json!({"amount": price, "currency": "EUR"});
        let product = json!({"externalId": external_id, "title": external_id, "variants": [{"sku": external_id, "price": price}]});
        let answer = self.post("/v1/products", &product).await;
        assert!(answer.status.is_success(), "{}", answer.text);
        answer.json["product"]["variants"][0]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Says how many pieces lie there.
    pub async fn set_stock(&self, variant: &str, location: &str, on_hand: i64) {
        let entries = json!([{"variantId": variant, "locationId": location, "onHand": on_hand}]);
        self.post("/v1/inventory-levels/set", &json!({"entries": entries}))
            .await
            .expect(200);
    }

    /// Makes an endpoint, and gives its id and secret.
    pub async fn endpoint(&self, url: Option<&str>, event_types: &[&str]) -> (String, String) {
        let body = json!({"url": url, "eventTypes": event_types});
        let created = self.post("/v1/webhook-endpoints", &body).await.expect(201);
        let text = |name: &str| created[name].as_str().unwrap_or_default().to_owned();
        (text("id"), text("secret"))
    }

    /// The whole of an endpoint's stream.
    pub async fn stream(&self, endpoint: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let page = self
                .get(&format!(
                    "/v1/webhook-endpoints/{endpoint}/events?after={after}&limit=250"
                ))
                .await
                .expect(200);
            let data = page["data"].as_array().unwrap();
            if data.is_empty() {
                return events;
            }
            events.extend(data.iter().cloned());
            after = page["nextAfter"].as_i64().unwrap();
        }
    }
}

/// A key that nobody has used.
pub fn new_key() -> String {
    uuid::Uuid::now_v7().to_string()
}

pub(crate) async fn read(response: reqwest::Response) -> Answer {
    try_read(response).await.unwrap()
}

async fn try_read(response: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await?;
    let json = serde_json::from_str(&text).unwrap_or_default();
    Ok(Answer {
        status,
        headers,
        json,
        text,
    })
}
