//! An app that asks, a merchant who consents, and the tokens that come of it.

use auth::{
    Authorizations,
    account::{Role, Session},
    authorization::{Decision, GrantEnd},
    client::app::{self, AppInput, ClientKind, NewApp},
    grant::Term,
};
use axum::http::{StatusCode, header};
use kernel::id::MerchantId;
use url::{Url, form_urlencoded};

use crate::fixture::{Answer, Installation, Process, basic, secret_of};

/// RFC 7636, appendix B.
pub(crate) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(crate) const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub(crate) const CALLBACK: &str = "https://desk.example/callback";

/// An app, a merchant, and somebody who may decide for the merchant.
pub(crate) struct Desk {
    pub(crate) app: NewApp,
    pub(crate) merchant: MerchantId,
    pub(crate) session: Session,
}

impl Desk {
    pub(crate) fn id(&self) -> String {
        self.app.app.id.to_string()
    }

    /// The parameters of an honest request.
    pub(crate) fn request<'d>(&self, scope: &'d str) -> Vec<(&'d str, String)> {
        [
            ("response_type", "code"),
            ("client_id", &self.id()),
            ("redirect_uri", CALLBACK),
            ("scope", scope),
            ("state", "a state"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec()
    }

    /// How the client shows itself: in the form.
    pub(crate) fn credentials(&self) -> String {
        match self.app.app.kind {
            ClientKind::Public => format!("&client_id={}", self.id()),
            ClientKind::Confidential => format!(
                "&client_id={}&client_secret={}",
                self.id(),
                secret_of(&self.app)
            ),
        }
    }
}

/// `request` with `name` saying `value` instead, or nothing.
pub(crate) fn with<'d>(
    request: &[(&'d str, String)],
    name: &'d str,
    value: Option<&str>,
) -> Vec<(&'d str, String)> {
    let kept = request.iter().filter(|(given, _)| *given != name).cloned();
    kept.chain(value.map(|value| (name, value.to_owned())))
        .collect()
}

pub(crate) fn encoded(parameters: &[(&str, String)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish()
}

pub(crate) fn approve(scopes: &str) -> Decision {
    Decision {
        scopes: scopes.parse().unwrap(),
        personal_data: false,
        locations: None,
        end: GrantEnd::After(Term::UntilRevoked),
        grant_version: None,
    }
}

/// The value of `name` in the query of `url`.
pub(crate) fn parameter(url: &Url, name: &str) -> Option<String> {
    let mut values = url
        .query_pairs()
        .filter(|(given, _)| given == name)
        .map(|(_, value)| value.into_owned());
    let value = values.next();
    assert_eq!(values.next(), None, "{name} once in {url}");
    value
}

/// Where an answer sends the browser.
pub(crate) fn location(answer: &Answer) -> Url {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
    let location = answer.headers[header::LOCATION].to_str().unwrap();
    Url::parse("https://stoa.example")
        .unwrap()
        .join(location)
        .unwrap()
}

pub(crate) fn handle_of(answer: &Answer) -> String {
    let location = location(answer);
    let handle = location.path().strip_prefix("/console/consent/");
    handle
        .unwrap_or_else(|| panic!("not kept: {location}"))
        .to_owned()
}

impl Installation {
    pub(crate) fn authorizations(&self) -> Authorizations {
        Authorizations::new(self.issuer.clone(), self.database.api(), self.clock.clone())
    }

    pub(crate) async fn app_of(&self, input: AppInput) -> NewApp {
        let mut tx = self.database.api().begin().await.unwrap();
        let app = app::create(&mut tx, input, self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        app
    }

    pub(crate) async fn desk(&self, kind: ClientKind) -> Desk {
        self.desk_of(AppInput {
            kind,
            redirect_uris: vec![CALLBACK.to_owned()],
            ..AppInput::named("Parcel Desk")
        })
        .await
    }

    pub(crate) async fn desk_of(&self, input: AppInput) -> Desk {
        let (app, merchant) = (self.app_of(input).await, self.merchant().await);
        Desk {
            app,
            merchant,
            session: self.session(merchant, Role::Manager),
        }
    }

    /// The code that comes of an honest request for `scope`, and of consent to all of it.
    pub(crate) async fn code(&self, process: &Process, desk: &Desk, scope: &str) -> String {
        let living = self
            .authorizations()
            .living_grant(desk.merchant, desk.app.app.id)
            .await
            .unwrap();
        let answer = process.authorize(&desk.request(scope)).await;
        let decision = Decision {
            grant_version: living.map(|grant| grant.version),
            ..approve(scope)
        };
        let session = self.session(desk.merchant, Role::Manager);
        let url = self
            .authorizations()
            .consent(
                &self.decider(),
                &session,
                &handle_of(&answer),
                desk.merchant,
                decision,
            )
            .await
            .unwrap();
        parameter(&url, "code").unwrap()
    }

    /// The tokens that come of it.
    pub(crate) async fn tokens(&self, process: &Process, desk: &Desk, scope: &str) -> Tokens {
        let code = self.code(process, desk, scope).await;
        tokens_of(&process.redeem(desk, &code).await)
    }

    /// How many entries the merchant's log has of `action`.
    pub(crate) async fn audited(&self, merchant: MerchantId, action: &str) -> i64 {
        use sqlx::Row;
        let mut tx = self.database.api().enter(merchant).await.unwrap();
        let statement = format!("select count(*) from audit_entries where action = '{action}'");
        let row = sqlx::Executor::fetch_one(&mut *tx, sqlx::AssertSqlSafe(statement))
            .await
            .unwrap();
        row.get(0)
    }

    /// A count that the owner of the tables sees.
    pub(crate) async fn count(&self, statement: &str) -> i64 {
        use sqlx::Row;
        let mut owner = self.database.owner().await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        let row = sqlx::Executor::fetch_one(&mut owner, statement)
            .await
            .unwrap();
        row.get(0)
    }

    pub(crate) async fn execute(&self, statement: &str) {
        let mut owner = self.database.owner().await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::Executor::execute(&mut owner, statement)
            .await
            .unwrap();
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

pub(crate) fn tokens_of(answer: &Answer) -> Tokens {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    let text = |name: &str| answer.json[name].as_str().unwrap().to_owned();
    Tokens {
        access: text("access_token"),
        refresh: text("refresh_token"),
    }
}

pub(crate) fn assert_error(answer: &Answer, error: &str, case: &str) {
    assert_eq!(
        answer.json["error"].as_str(),
        Some(error),
        "{case}: {}",
        answer.json
    );
    let status = if error == "invalid_client" { 401 } else { 400 };
    assert_eq!(answer.status, status, "{case}: {}", answer.json);
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store", "{case}");
}

impl Process {
    pub(crate) async fn authorize(&self, request: &[(&str, String)]) -> Answer {
        self.get(&format!("/oauth/authorize?{}", encoded(request)))
            .await
    }

    pub(crate) async fn redeem(&self, desk: &Desk, code: &str) -> Answer {
        self.redeem_with(desk, code, CALLBACK, VERIFIER, "").await
    }

    pub(crate) async fn redeem_with(
        &self,
        desk: &Desk,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        more: &str,
    ) -> Answer {
        let form = format!(
            "grant_type=authorization_code&code={code}&redirect_uri={redirect_uri}&code_verifier={verifier}{}{more}",
            desk.credentials()
        );
        self.post(&[], &form).await
    }

    pub(crate) async fn refresh(&self, desk: &Desk, token: &str) -> Answer {
        self.refresh_with(desk, token, "").await
    }

    pub(crate) async fn refresh_with(&self, desk: &Desk, token: &str, more: &str) -> Answer {
        let form = format!(
            "grant_type=refresh_token&refresh_token={token}{}{more}",
            desk.credentials()
        );
        self.post(&[], &form).await
    }

    pub(crate) async fn introspect(&self, app: &NewApp, token: &str) -> Answer {
        self.post_to(
            "/oauth/introspect",
            &[basic(app)],
            &format!("token={token}"),
        )
        .await
    }

    pub(crate) async fn revoke(&self, desk: &Desk, token: &str) -> Answer {
        let form = format!("token={token}{}", desk.credentials());
        self.post_to("/oauth/revoke", &[], &form).await
    }

    /// Whether `token` is taken once the view has been reread.
    pub(crate) async fn takes(&self, token: &str) -> bool {
        self.view.reread().await.unwrap();
        self.verify(token).await.is_ok()
    }
}
