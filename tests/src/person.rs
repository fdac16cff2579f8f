//! People who sign in and consent, by a browser without a screen.

use std::sync::Arc;

use axum::{Router, extract::Query, http::StatusCode, routing::get};
use reqwest::Url;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::{
    browser::{Browser, Page},
    form::{Control, Form},
};

/// Somebody with a password.
#[derive(Debug, Clone, Serialize)]
pub struct Person {
    /// Their id.
    pub id: String,
    /// What they sign in with.
    pub login: String,
    /// Their password.
    pub password: String,
}

impl Person {
    /// Fills in the page that asks who one is, and sends it.
    pub async fn sign_in_on(&self, browser: &Browser, page: &Page) -> Page {
        let form = page
            .form("password")
            .fill("login", &self.login)
            .fill("password", &self.password);
        browser.submit(&form).await
    }

    /// A new browser in which they are signed in.
    pub async fn browser(&self, base_url: &str) -> Browser {
        let browser = Browser::at(base_url);
        let page = browser.open("/console/sign-in").await.expect(200);
        let page = self.sign_in_on(&browser, &page).await;
        assert!(!page.has_form("password"), "{page}");
        browser
    }

    /// Opens an authorization request and signs in where asked: the page of consent.
    pub async fn consent_page(&self, browser: &Browser, request: &str) -> Page {
        let mut page = browser.open(request).await;
        if page.has_form("password") {
            page = self.sign_in_on(browser, &page).await;
        }
        page
    }

    /// Consents to an authorization request as `decide` fills in the form. Gives the address of the client that the browser is sent to.
    pub async fn consent(
        &self,
        browser: &Browser,
        request: &str,
        decide: impl FnOnce(Form) -> Form,
    ) -> Url {
        let page = self.consent_page(browser, request).await.expect(200);
        let question = question(&page).unwrap_or_else(|| panic!("{page}\n… asks for nothing"));
        let answer = browser.submit(&decide(question)).await;
        answer.expect(303).left_for()
    }
}

/// The form by which a page of consent is agreed to.
pub fn question(page: &Page) -> Option<Form> {
    let allows = |control: &Control| control.name == "decision" && control.value == "allow";
    let mut forms = page.forms().into_iter();
    forms.find(|form| form.controls.iter().any(allows))
}

/// Somebody at a browser, for programs that can't open one: `GET {url}?request=…` consents to an authorization request, and answers with the address that
/// the client is answered at.
#[derive(Debug, Clone)]
pub struct Consenter {
    /// Where it listens.
    pub url: String,
}

impl Consenter {
    /// Starts one for `person`, who is new at the site each time.
    pub async fn start(person: Person, base_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (person, base_url) = (Arc::new(person), base_url.to_owned());
        let consent = async move |Query(query): Query<Vec<(String, String)>>| {
            let browser = Browser::at(&base_url);
            let mut page = person.consent_page(&browser, &query[0].1).await;
            if let Some(question) = question(&page) {
                page = browser.submit(&question).await;
            }
            match page.location() {
                Some(location) => (StatusCode::OK, location.to_string()),
                None => (StatusCode::CONFLICT, page.to_string()),
            }
        };
        let router = Router::new().route("/", get(consent));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url }
    }
}
