//! A browser without a screen: it keeps cookies, follows redirects within the site, and sends forms as browsers do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use reqwest::{
    Method, StatusCode, Url,
    header::{COOKIE, HeaderMap, LOCATION, ORIGIN, SET_COOKIE},
    redirect::Policy,
};

use crate::{
    form::{self, Form},
    html::{self, Token},
    stoa::ANSWER_TIMEOUT,
};

/// Redirects that are followed in a row.
const REDIRECTS_MAX: usize = 10;

/// A cookie as it was set last.
#[derive(Debug, Clone)]
pub struct Cookie {
    /// Its value.
    pub value: String,
    /// What was said of it: `HttpOnly; SameSite=Lax; Path=/`.
    pub attributes: String,
}

/// A browser at one site. A clone shares its cookies.
#[derive(Debug, Clone)]
pub struct Browser {
    site: Url,
    http: reqwest::Client,
    cookies: Arc<Mutex<BTreeMap<String, Cookie>>>,
}

/// What a browser shows: the answer at the end of the redirects within the site.
#[derive(Debug, Clone)]
pub struct Page {
    /// Where it is.
    pub url: Url,
    /// The status: a redirect only if it leaves the site.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The HTML.
    pub body: String,
    /// The redirects that led here: each one's status and where it led.
    pub redirects: Vec<(StatusCode, Url)>,
}

impl Browser {
    /// A new browser that knows nothing, at the site of this address.
    pub fn at(base_url: &str) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(ANSWER_TIMEOUT)
            .build()
            .unwrap();
        Self {
            site: Url::parse(base_url).unwrap(),
            http,
            cookies: Arc::default(),
        }
    }

    /// Opens an address or a path.
    pub async fn open(&self, address: &str) -> Page {
        let url = self.site.join(address).unwrap();
        self.send(Method::GET, url, &[]).await
    }

    /// Sends a form.
    pub async fn submit(&self, form: &Form) -> Page {
        let entries = form.entries();
        let entries: Vec<(&str, &str)> = entries
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.send(form.method.clone(), form.action.clone(), &entries)
            .await
    }

    /// Sends fields as a form would: in the body of a POST, in the query of a GET.
    pub async fn send(&self, method: Method, url: Url, fields: &[(&str, &str)]) -> Page {
        let headers = HeaderMap::from_iter([(
            ORIGIN,
            self.site.origin().ascii_serialization().try_into().unwrap(),
        )]);
        self.send_with(method, url, fields, headers).await
    }

    /// The same with these headers, which are sent with a POST only, as `Origin` is.
    pub async fn send_with(
        &self,
        mut method: Method,
        mut url: Url,
        fields: &[(&str, &str)],
        headers: HeaderMap,
    ) -> Page {
        let mut fields = fields.to_vec();
        let mut redirects = Vec::new();
        loop {
            let mut request = self.http.request(method.clone(), url.clone());
            let cookies = self.cookie_header();
            if !cookies.is_empty() {
                request = request.header(COOKIE, cookies);
            }
            request = if method == Method::GET {
                if fields.is_empty() {
                    request
                } else {
                    request.query(&fields)
                }
            } else {
                request.headers(headers.clone()).form(&fields)
            };
            let response = request.send().await.unwrap();
            let (status, headers) = (response.status(), response.headers().clone());
            url = response.url().clone();
            self.keep_cookies(&headers);
            let page = Page {
                url: url.clone(),
                status,
                headers,
                body: response.text().await.unwrap(),
                redirects: redirects.clone(),
            };
            let Some(target) = page.location() else {
                return page;
            };
            if target.origin() != self.site.origin() {
                return page;
            }
            redirects.push((status, target.clone()));
            assert!(redirects.len() <= REDIRECTS_MAX, "a loop: {redirects:?}");
            if ![307, 308].contains(&status.as_u16()) {
                method = Method::GET;
                fields.clear();
            }
            url = target;
        }
    }

    /// A cookie.
    pub fn cookie(&self, name: &str) -> Option<Cookie> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    /// The names of its cookies.
    pub fn cookie_names(&self) -> Vec<String> {
        self.cookies.lock().unwrap().keys().cloned().collect()
    }

    /// Plants a cookie.
    pub fn set_cookie(&self, name: &str, value: &str) {
        let cookie = Cookie {
            value: value.to_owned(),
            attributes: String::new(),
        };
        self.cookies.lock().unwrap().insert(name.to_owned(), cookie);
    }

    fn cookie_header(&self) -> String {
        let cookies = self.cookies.lock().unwrap();
        let pairs: Vec<String> = cookies
            .iter()
            .map(|(name, cookie)| format!("{name}={}", cookie.value))
            .collect();
        pairs.join("; ")
    }

    fn keep_cookies(&self, headers: &HeaderMap) {
        let mut cookies = self.cookies.lock().unwrap();
        for header in headers.get_all(SET_COOKIE) {
            let text = header.to_str().unwrap();
            let (pair, attributes) = text.split_once(';').unwrap_or((text, ""));
            let (name, value) = pair.split_once('=').unwrap();
            let is_ended = attributes
                .split(';')
                .any(|attribute| attribute.trim().eq_ignore_ascii_case("max-age=0"));
            if is_ended {
                cookies.remove(name);
            } else {
                let cookie = Cookie {
                    value: value.to_owned(),
                    attributes: attributes.trim().to_owned(),
                };
                cookies.insert(name.to_owned(), cookie);
            }
        }
    }
}

impl Page {
    /// Where a redirect leads.
    pub fn location(&self) -> Option<Url> {
        if !self.status.is_redirection() {
            return None;
        }
        let location = self.headers.get(LOCATION)?.to_str().unwrap();
        Some(self.url.join(location).unwrap())
    }

    /// Where the redirect leads that leaves the site.
    #[track_caller]
    pub fn left_for(&self) -> Url {
        let location = self.location();
        location.unwrap_or_else(|| panic!("{self}\n… leads nowhere else"))
    }

    /// The page, if it has this status.
    #[must_use]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self}");
        self
    }

    /// Its words.
    pub fn text(&self) -> String {
        html::text(&html::tokens(&self.body))
    }

    /// Its forms.
    pub fn forms(&self) -> Vec<Form> {
        form::forms(&self.url, &self.body)
    }

    /// The first form that has such a field or button, by name or label.
    #[track_caller]
    pub fn form(&self, name: &str) -> Form {
        let form = self.forms().into_iter().find(|form| form.has(name));
        form.unwrap_or_else(|| panic!("{self}\n… has no form with {name}"))
    }

    /// Whether a form has such a field or button.
    pub fn has_form(&self, name: &str) -> bool {
        self.forms().iter().any(|form| form.has(name))
    }

    /// Where the first link leads whose words contain these.
    pub fn link(&self, words: &str) -> Option<Url> {
        let tokens = html::tokens(&self.body);
        let links = tokens.iter().enumerate().filter_map(|(at, token)| {
            let Token::Open(name, _) = token else {
                return None;
            };
            let target = token.attribute("href").filter(|_| name == "a")?;
            let end = tokens[at..]
                .iter()
                .position(|token| *token == Token::Close("a".to_owned()))?;
            Some((html::text(&tokens[at..at + end]), target))
        });
        let mut found = links.filter(|(text, _)| text.contains(words));
        found
            .next()
            .map(|(_, target)| self.url.join(target).unwrap())
    }
}

impl std::fmt::Display for Page {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (status, url, text) = (self.status, &self.url, self.text());
        write!(formatter, "{status} {url}: {text}")
    }
}
