//! A reader of server-sent events, as the HTML standard has them parsed.

use serde_json::Value;

use crate::{Answer, Client, PATIENCE};

/// A message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type; empty for an event.
    pub kind: String,
    /// The stream's place after it.
    pub id: String,
    /// Its data; null if it has none.
    pub data: Value,
}

/// A stream that is being read.
#[derive(Debug)]
pub struct EventStream {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// The place after the last message.
    pub last_id: Option<String>,
}

impl Client {
    /// Opens a stream, going on after `last_id` if there is one.
    pub async fn follow(&self, path: &str, last_id: Option<&str>) -> EventStream {
        self.try_follow(path, last_id)
            .await
            .unwrap_or_else(|answer| panic!("{path}: {}", answer.text))
    }

    /// The same, or the answer that refuses it.
    pub async fn try_follow(
        &self,
        path: &str,
        last_id: Option<&str>,
    ) -> Result<EventStream, Answer> {
        // The client's own has a timeout over the whole answer.
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = http
            .get(format!("{}{path}", self.credentials.base_url))
            .bearer_auth(self.token());
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id);
        }
        let response = request.send().await.unwrap();
        if !response.status().is_success() {
            return Err(crate::client::read(response).await);
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(EventStream {
            response,
            buffer: Vec::new(),
            last_id: last_id.map(str::to_owned),
        })
    }
}

impl Client {
    /// Opens a subscription of GraphQL.
    pub async fn subscribe(&self, query: &str, variables: Value) -> EventStream {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = http
            .post(format!("{}/graphql", self.credentials.base_url))
            .bearer_auth(self.token())
            .header("accept", "text/event-stream")
            .json(&serde_json::json!({"query": query, "variables": variables}))
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        EventStream {
            response,
            buffer: Vec::new(),
            last_id: None,
        }
    }
}

impl EventStream {
    /// The next message with data; `None` when the stream has ended or broke off.
    pub async fn next(&mut self) -> Option<Message> {
        tokio::time::timeout(PATIENCE, self.read())
            .await
            .expect("a message in time")
    }

    /// The next event.
    pub async fn event(&mut self) -> Value {
        let message = self.next().await.expect("an event");
        assert_eq!(message.kind, "", "{message:?}");
        message.data
    }

    /// Waits until the stream has said where it begins.
    pub async fn begun(&mut self) {
        while self.last_id.is_none() {
            if let Some(message) = self.take() {
                panic!("a message before the beginning: {message:?}");
            }
            if self.last_id.is_none() {
                let chunk = self.response.chunk().await.unwrap().expect("a beginning");
                self.buffer.extend_from_slice(&chunk);
            }
        }
    }

    async fn read(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            let chunk = self.response.chunk().await.ok()??;
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// Takes the next whole message with data out of the buffer.
    fn take(&mut self) -> Option<Message> {
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let text = String::from_utf8(block).unwrap();
            let (mut kind, mut data) = (String::new(), String::new());
            for line in text.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => self.last_id = Some(id.to_owned()),
                    Some(("event", name)) => name.clone_into(&mut kind),
                    Some(("data", part)) => data.push_str(part),
                    _ => {}
                }
            }
            if !data.is_empty() {
                return Some(Message {
                    kind,
                    id: self.last_id.clone().unwrap_or_default(),
                    data: serde_json::from_str(&data).unwrap(),
                });
            }
        }
        None
    }
}
