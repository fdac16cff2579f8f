//! An installation on a database of its own, and a browser that keeps its cookies and sends its forms as browsers do.

use std::{collections::BTreeMap, sync::Arc};

use auth::{
    Issuer,
    account::{
        Accounts, Hasher, Role, Session,
        invitation::Invited,
        person::{By, NewPerson},
        sign_in::SignIn,
    },
    authorization::Authorizations,
    client::{
        app::{self, App, AppInput},
        developer::Developers,
        secret::Secret,
    },
    grant::Grants,
    merchant::{self, MerchantInput},
};
use axum::{
    Extension, Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use console::Console;
use http_body_util::BodyExt;
use kernel::{
    caller::Caller,
    clock::Clock,
    event::Announcer,
    id::{MerchantId, RequestId},
    keyring::Keyring,
    test_database::{self, TestDatabase},
};
use sha2::{Digest, Sha256};
use tower::ServiceExt;
use url::form_urlencoded;

pub(crate) const ISSUER: &str = "https://stoa.example";
pub(crate) const PASSWORD: &str = "nine purple lanterns adrift";
pub(crate) const LOGIN: &str = "ines@corner-books.example";
pub(crate) const REDIRECT_URI: &str = "https://app.parcel-desk.example/callback";

/// A code verifier of PKCE (RFC 7636, appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

pub(crate) struct Installation {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) authorizations: Authorizations,
    pub(crate) clock: Clock,
    keyring: Arc<Keyring>,
    router: Router,
    /// Dropped last: with it goes the database.
    database: TestDatabase,
}

impl Installation {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let clock = Clock::manual(Clock::system().now());
        let keyring = Arc::new(test_database::keyring().unwrap());
        let issuer = Issuer::parse(ISSUER).unwrap();
        let api = database.api();
        let accounts = Accounts::new(
            api.clone(),
            Arc::clone(&keyring),
            clock.clone(),
            issuer.clone(),
        );
        let accounts = Arc::new(accounts.unwrap().with_hasher(Hasher::new(64, 1).unwrap()));
        let authorizations = Authorizations::new(issuer.clone(), api.clone(), clock.clone());
        let router = console::router(Console {
            accounts: Arc::clone(&accounts),
            authorizations: authorizations.clone(),
            developers: Developers::new(api.clone(), clock.clone()),
            grants: Grants::new(api.clone(), clock.clone(), Announcer::default()),
            issuer,
            clock: clock.clone(),
            database: api,
        });
        let caller = Caller::new(
            RequestId::new(clock.now()),
            Some("192.0.2.7".parse().unwrap()),
            Some("a test"),
        );
        Self {
            accounts,
            authorizations,
            clock,
            keyring,
            router: router.layer(Extension(caller)),
            database,
        }
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::local(RequestId::new(self.clock.now()))
    }

    pub(crate) fn browser(&self) -> Browser<'_> {
        Browser {
            installation: self,
            cookies: BTreeMap::new(),
        }
    }

    pub(crate) async fn merchant(&self, name: &str) -> MerchantId {
        let id = MerchantId::new(self.clock.now());
        let mut tx = self.database.api().enter(id).await.unwrap();
        let input = MerchantInput {
            name: name.to_owned(),
        };
        merchant::create(&mut tx, &self.keyring, id, input, self.clock.now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Somebody new, who is staff of `merchants`.
    pub(crate) async fn person(&self, login: &str, merchants: &[(MerchantId, Role)]) {
        let caller = self.caller();
        let new = NewPerson {
            login: login.to_owned(),
            name: "Ines Weber".to_owned(),
            password: Secret::new(PASSWORD.to_owned()),
        };
        self.accounts
            .create_person(&caller, new, false, false)
            .await
            .unwrap();
        let session = self.session(login).await;
        for &(merchant, role) in merchants {
            let invited = Invited::Staff { merchant, role };
            let (_, token) = self
                .accounts
                .invite(&caller, By::CommandLine, invited, None)
                .await
                .unwrap();
            self.accounts
                .accept_as(&caller, token.expose(), &session)
                .await
                .unwrap();
        }
    }

    pub(crate) async fn session(&self, login: &str) -> Session {
        let password = Secret::new(PASSWORD.to_owned());
        let signed_in = self
            .accounts
            .sign_in(&self.caller(), login, &password)
            .await
            .unwrap();
        let SignIn::Session(session) = signed_in else {
            panic!("a second factor is asked for");
        };
        self.accounts
            .session(session.token.expose())
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn app(&self) -> App {
        let mut tx = self.database.api().begin().await.unwrap();
        let input = AppInput {
            redirect_uris: vec![REDIRECT_URI.to_owned()],
            required_scopes: "orders:read".parse().unwrap(),
            homepage_url: Some("https://parcel-desk.example".to_owned()),
            ..AppInput::named("Parcel Desk")
        };
        let new = app::create(&mut tx, input, self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        new.app
    }

    /// The handle of a request of `app` for `scope`.
    pub(crate) async fn asks(&self, app: &App, scope: &str) -> String {
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let parameters = [
            ("response_type", "code"),
            ("client_id", &app.id.to_string()),
            ("redirect_uri", REDIRECT_URI),
            ("scope", scope),
            ("state", "a-state"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let Ok(handle) = self.authorizations.begin(&parameters).await else {
            panic!("the request is refused");
        };
        handle.expose().to_owned()
    }
}

/// A browser: it keeps its cookies, and says where its forms come from.
pub(crate) struct Browser<'i> {
    installation: &'i Installation,
    pub(crate) cookies: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) page: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> &str {
        self.header("location")
    }

    /// What the hidden field `name` of the page holds.
    pub(crate) fn hidden(&self, name: &str) -> &str {
        let field = format!("name=\"{name}\" value=\"");
        let (_, rest) = self
            .page
            .split_once(&field)
            .unwrap_or_else(|| panic!("no field {name} in {}", self.page));
        rest.split('"').next().unwrap()
    }
}

impl Browser<'_> {
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(path);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Sends a form of `page` with its token, as a browser does.
    pub(crate) async fn submit(
        &mut self,
        page: &Answer,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut fields = fields.to_vec();
        fields.push(("form_token", page.hidden("form_token")));
        self.post(path, Some(ISSUER), &fields).await
    }

    pub(crate) async fn post(
        &mut self,
        path: &str,
        origin: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut request =
            Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        self.send(request.body(Body::from(form.finish())).unwrap())
            .await
    }

    pub(crate) async fn send(&mut self, mut request: Request<Body>) -> Answer {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            let value = cookies.join("; ").parse().unwrap();
            request.headers_mut().insert(header::COOKIE, value);
        }
        let answer = self
            .installation
            .router
            .clone()
            .oneshot(request)
            .await
            .unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        for cookie in headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, rest) = cookie.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Answer {
            status,
            headers,
            page: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// Signs in by the page.
    pub(crate) async fn sign_in(&mut self, login: &str) -> Answer {
        let page = self.get("/console/sign-in").await;
        let fields = [("login", login), ("password", PASSWORD), ("next", "")];
        self.submit(&page, "/console/sign-in", &fields).await
    }
}
