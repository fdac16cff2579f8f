//! Attacks, by the sections of RFC 9700 (Best Current Practice for OAuth 2.0 Security). What a file beside this one shows already is not shown again here;
//! docs/security.md says which test stands for which attack. For each defence there is a patch in tests/defences that takes it away and names the test that
//! must fail then.

use auth::client::app::ClientKind;
use axum::{
    body::Body,
    http::{HeaderName, Request, header},
};

use crate::{
    fixture::{Answer, Installation, Process},
    flow::{CALLBACK, Desk, VERIFIER},
};

mod answers;
mod clients;
mod codes;
mod hostile;
mod redirects;
mod tokens;

/// An installation, a process of it, and an app whose merchant consents.
struct Scene {
    installation: Installation,
    process: Process,
    desk: Desk,
}

impl Scene {
    async fn new(kind: ClientKind) -> Self {
        let installation = Installation::new().await;
        let process = installation.process().await;
        let desk = installation.desk(kind).await;
        Self {
            installation,
            process,
            desk,
        }
    }

    /// A form from an address of its own each time: what is looked at here is not the limiter.
    async fn post(&self, path: &str, headers: &[(HeaderName, String)], form: &str) -> Answer {
        let mut request =
            Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.send(request.body(Body::from(form.to_owned())).unwrap())
            .await
    }

    async fn send(&self, mut request: Request<Body>) -> Answer {
        let [a, b, c, d, ..] = rand::random::<[u8; 16]>();
        let caller = self.installation.caller_from(&format!("{a}.{b}.{c}.{d}"));
        request.extensions_mut().insert(caller);
        self.process.send(request).await
    }

    /// How many requests wait for a decision.
    async fn waiting(&self) -> i64 {
        let count = "select count(*) from authorization_requests";
        self.installation.count(count).await
    }
}

/// A redemption of `code` without credentials.
fn redemption(code: &str, verifier: &str) -> String {
    format!(
        "grant_type=authorization_code&code={code}&redirect_uri={CALLBACK}&code_verifier={verifier}"
    )
}

/// An honest redemption of `code` by `desk`.
fn redemption_of(desk: &Desk, code: &str) -> String {
    format!("{}{}", redemption(code, VERIFIER), desk.credentials())
}
