//! Apps: what acts for merchants. To OAuth an app is a client (RFC 6749, section 2.1), whose client id is the app's id.

use kernel::{
    clock::Timestamp,
    id::AppId,
    page::{Page, PageRequest},
    scope::ScopeSet,
    validation::{self, Faults, Validate},
    version::Version,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use url::Url;
use utoipa::ToSchema;

use super::{
    app_secret::{self, AppSecret, Overlap},
    redirect_uri::{self, REDIRECT_URIS_MAX},
    secret::Secret,
    store,
};
use crate::{Error, grant::scope_names, merchant::NAME_LENGTH_MAX};

/// Characters of an app's home page.
const HOMEPAGE_URL_LENGTH_MAX: usize = 2_000;

/// Whether an app can keep a secret (RFC 6749, section 2.1). Said once, when it is made: a client that could turn public could be anybody.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, sqlx::Type, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum ClientKind {
    /// Runs on a server and proves itself by a secret or a key.
    #[default]
    Confidential,
    /// Runs on people's machines and proves nothing: its name is all that is known of it.
    Public,
}

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The app's id, which is its OAuth client id too.
    pub id: AppId,
    /// What the app is called.
    #[schema(example = "Parcel Desk")]
    pub name: String,
    /// Whether it can keep a secret.
    pub kind: ClientKind,
    /// Where people may be sent back to.
    #[schema(example = json!(["https://parcel-desk.example/callback"]))]
    pub redirect_uris: Vec<String>,
    /// What it may ask for at most; null: whatever a merchant may give.
    #[serde(with = "scope_names::optional")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["orders:read"]))]
    pub scopes: Option<ScopeSet>,
    /// What it can't do without: not for a merchant to untick where it is asked for.
    #[serde(with = "scope_names")]
    #[schema(value_type = Vec<String>, example = json!(["orders:read"]))]
    pub required_scopes: ScopeSet,
    /// The app's own page.
    #[schema(example = "https://parcel-desk.example")]
    pub homepage_url: Option<String>,
    /// Raised by every change.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
}

impl App {
    /// Whether people may be sent back to `given` with an answer for this app.
    pub fn allows_redirect_to(&self, given: &str) -> bool {
        self.redirect_uris
            .iter()
            .any(|registered| redirect_uri::matches(registered, given))
    }

    /// The scopes of `asked` that this app may ask for.
    #[must_use]
    pub fn may_ask_for(&self, asked: ScopeSet) -> ScopeSet {
        self.scopes.map_or(asked, |limit| asked.within(limit))
    }
}

/// What an app is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppInput {
    /// What the app is called, 1 to 200 characters.
    #[schema(example = "Parcel Desk")]
    pub name: String,
    /// Whether it can keep a secret: `confidential` unless something else is said. Stays as it is.
    #[serde(default)]
    pub kind: ClientKind,
    /// Where people may be sent back to, at most 20 URIs: https, http on `127.0.0.1` or `[::1]` (any port), and for public clients schemes of their
    /// own with a dot in them. A public client has at least one.
    #[serde(default)]
    #[schema(example = json!(["https://parcel-desk.example/callback"]))]
    pub redirect_uris: Vec<String>,
    /// What it may ask for at most; null: whatever a merchant may give.
    #[serde(default, with = "scope_names::optional")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["orders:read"]))]
    pub scopes: Option<ScopeSet>,
    /// What it can't do without.
    #[serde(default, with = "scope_names")]
    #[schema(value_type = Vec<String>, example = json!(["orders:read"]))]
    pub required_scopes: ScopeSet,
    /// The app's own page, https.
    #[serde(default)]
    #[schema(example = "https://parcel-desk.example")]
    pub homepage_url: Option<String>,
}

impl AppInput {
    /// A confidential client of which nothing but the name is known: enough for client credentials.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }
}

impl Validate for AppInput {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/name", &self.name, NAME_LENGTH_MAX);
        // The name stands on the page where merchants consent: it must not turn the words around it.
        if self.name.chars().any(|character| {
            matches!(character, '\n' | '\r' | '\t' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        }) {
            faults.add("/name", "invalid", "must be one line, in one direction");
        }
        faults.at_most("/redirectUris", &self.redirect_uris, REDIRECT_URIS_MAX);
        for (place, uri) in self
            .redirect_uris
            .iter()
            .enumerate()
            .take(REDIRECT_URIS_MAX)
        {
            let pointer = format!("/redirectUris/{place}");
            if let Err(expected) = redirect_uri::check_registered(uri, self.kind) {
                faults.add(&pointer, "invalid", expected);
            } else if self
                .redirect_uris
                .iter()
                .take(place)
                .any(|other| other == uri)
            {
                faults.add(&pointer, "repeated", "is there already");
            }
        }
        if self.kind == ClientKind::Public && self.redirect_uris.is_empty() {
            faults.add(
                "/redirectUris",
                "required",
                "must name at least one: a public client can do nothing else than send people to us",
            );
        }
        if let Some(scopes) = self.scopes {
            if scopes.is_empty() {
                faults.add(
                    "/scopes",
                    "required",
                    "must name at least one scope, or be null for all",
                );
            } else if !scopes.allows_all(self.required_scopes) {
                faults.add(
                    "/requiredScopes",
                    "invalid",
                    "must be among those that the app may ask for",
                );
            }
        }
        if let Some(homepage_url) = &self.homepage_url
            && !is_https(homepage_url)
        {
            faults.add(
                "/homepageUrl",
                "invalid",
                "must be an https URL of at most 2,000 characters, without a user name",
            );
        }
    }
}

/// Whether `text` may stand as a link on the page where merchants consent.
fn is_https(text: &str) -> bool {
    text.len() <= HOMEPAGE_URL_LENGTH_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && Url::parse(text).is_ok_and(|url| {
            url.scheme() == "https"
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        })
}

/// A new app, with the secret that is shown this once.
#[derive(Debug)]
pub struct NewApp {
    /// The app.
    pub app: App,
    /// Its client secret; only a hash of it is kept. `None`: a public client, which has none.
    pub client_secret: Option<Secret>,
}

/// Makes an app, and its secret if it is a confidential client.
pub async fn create(
    tx: &mut PgConnection,
    input: AppInput,
    now: Timestamp,
) -> Result<NewApp, Error> {
    validation::check(&input).map_err(Error::InvalidFields)?;
    let app = App {
        id: AppId::new(now),
        name: input.name,
        kind: input.kind,
        redirect_uris: input.redirect_uris,
        scopes: input.scopes,
        required_scopes: input.required_scopes,
        homepage_url: input.homepage_url,
        version: Version::FIRST,
        created_at: now,
    };
    store::insert(tx, &app).await?;
    let client_secret = match app.kind {
        ClientKind::Public => None,
        ClientKind::Confidential => Some(app_secret::add(tx, app.id, now).await?.1),
    };
    Ok(NewApp { app, client_secret })
}

/// The app `id`.
pub async fn get(tx: &mut PgConnection, id: AppId) -> Result<App, Error> {
    store::select(tx, id).await?.ok_or_else(|| not_found(id))
}

/// Where a page of the apps ends: they are listed in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppKey(AppId);

/// Every app of the installation: for the command line.
pub async fn list(tx: &mut PgConnection, page: &PageRequest<AppKey>) -> Result<Page<App>, Error> {
    let after = page.after.as_ref().map(|AppKey(id)| *id);
    let rows = store::select_page(tx, after, page.fetch_count()).await?;
    Ok(Page::from_rows(rows, page, |last| AppKey(last.id)))
}

/// Makes a secret for the app `id`, for the command line. The others end after `overlap`, or when they would have anyway.
pub async fn rotate_secret(
    tx: &mut PgConnection,
    id: AppId,
    overlap: Overlap,
    now: Timestamp,
) -> Result<(AppSecret, Secret), Error> {
    let app = store::select_for_update(tx, id)
        .await?
        .ok_or_else(|| not_found(id))?;
    app_secret::rotate(tx, &app, overlap, now).await
}

/// There is no such app, or none that whoever asks may see.
pub(crate) fn not_found(id: AppId) -> Error {
    Error::NotFound {
        noun: "app",
        id: id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn pointers(input: &str) -> Vec<String> {
        let problem = validation::from_json::<AppInput>(input.as_bytes()).unwrap_err();
        let pointers = problem.errors.into_iter().filter_map(|error| error.pointer);
        pointers.collect()
    }

    #[test]
    fn a_name_is_enough_for_a_confidential_client() {
        let input: AppInput = validation::from_json(br#"{"name": "Parcel Desk"}"#).unwrap();
        assert_eq!(input, AppInput::named("Parcel Desk"));
        assert_eq!(input.kind, ClientKind::Confidential);
    }

    #[test]
    fn an_input_names_every_fault_by_its_pointer() {
        let input = r#"{
            "name": "", "kind": "public", "redirectUris": ["https://a.example", "javascript:x", "https://a.example"],
            "scopes": ["orders:read"], "requiredScopes": ["orders:write"], "homepageUrl": "http://a.example"
        }"#;
        assert_eq!(
            pointers(input),
            [
                "/name",
                "/redirectUris/1",
                "/redirectUris/2",
                "/requiredScopes",
                "/homepageUrl"
            ]
        );
        assert_eq!(
            pointers(r#"{"name": "a", "kind": "public", "scopes": []}"#),
            ["/redirectUris", "/scopes"]
        );
        assert_eq!(
            pointers(r#"{"name": "a", "kind": "secret", "scopes": ["orders:raed"]}"#).len(),
            2
        );
        let many = vec!["https://a.example"; 21];
        let many = serde_json::json!({"name": "a", "redirectUris": many}).to_string();
        assert!(pointers(&many).contains(&"/redirectUris".to_owned()));
        for name in ["a\u{202e}b", "a\nb", "a\u{2066}b"] {
            let input = serde_json::json!({ "name": name }).to_string();
            assert_eq!(pointers(&input), ["/name"], "{name:?}");
        }
        for url in [
            "javascript:alert(1)",
            "https://user@a.example",
            "https://a b",
            "",
        ] {
            let input = serde_json::json!({"name": "a", "homepageUrl": url}).to_string();
            assert_eq!(pointers(&input), ["/homepageUrl"], "{url}");
        }
    }

    #[test]
    fn a_write_scope_among_those_it_may_ask_for_lets_it_need_the_read_scope() {
        let input =
            r#"{"name": "a", "scopes": ["orders:write"], "requiredScopes": ["orders:read"]}"#;
        assert!(validation::from_json::<AppInput>(input.as_bytes()).is_ok());
    }
}
