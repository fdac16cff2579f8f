//! From an app's request to its code.

use std::time::Duration;

use auth::{
    account::{Role, Session},
    client::app::App,
    grant::Grant,
};
use axum::http::StatusCode;
use kernel::id::MerchantId;
use url::Url;

use crate::browser::{Answer, Browser, Installation, LOGIN, REDIRECT_URI};

const ASKED: &str = "orders:read fulfillments:write inventory:read orders.pii:read";

struct Scene {
    installation: Installation,
    merchant: MerchantId,
    app: App,
}

impl Scene {
    async fn new(role: Role) -> Self {
        let installation = Installation::new().await;
        let merchant = installation.merchant("Corner Books").await;
        installation.person(LOGIN, &[(merchant, role)]).await;
        let app = installation.app().await;
        Self {
            installation,
            merchant,
            app,
        }
    }

    async fn signed_in(&self) -> Browser<'_> {
        let mut browser = self.installation.browser();
        browser.sign_in(LOGIN).await;
        browser
    }

    async fn asks(&self, scope: &str) -> String {
        let handle = self.installation.asks(&self.app, scope).await;
        format!("/console/consent/{handle}")
    }

    async fn grant(&self) -> Option<Grant> {
        self.installation
            .authorizations
            .living_grant(self.merchant, self.app.id)
            .await
            .unwrap()
    }

    async fn allow(
        &self,
        browser: &mut Browser<'_>,
        path: &str,
        page: &Answer,
        fields: &[(&str, &str)],
    ) -> Answer {
        let merchant = self.merchant.to_string();
        let mut fields = fields.to_vec();
        fields.extend([("decision", "allow"), ("merchant", merchant.as_str())]);
        browser.submit(page, path, &fields).await
    }
}

fn parameter(answer: &Answer, name: &str) -> Option<String> {
    let url = Url::parse(answer.location()).unwrap();
    assert!(url.as_str().starts_with(REDIRECT_URI));
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn a_manager_gives_what_is_ticked_and_the_app_gets_its_code() {
    let scene = Scene::new(Role::Manager).await;
    let mut browser = scene.installation.browser();
    let path = scene.asks(ASKED).await;
    let answer = browser.get(&path).await;
    assert!(answer.location().starts_with("/console/sign-in?next="));
    browser.sign_in(LOGIN).await;
    let page = browser.get(&path).await;
    assert_eq!(page.status, StatusCode::OK);
    for words in [
        "Parcel Desk asks for access to Corner Books",
        "parcel-desk.example",
        "Orders without personal data",
        "Ship orders and write tracking",
        "See the names, addresses and contacts of customers",
        "verified by us",
    ] {
        assert!(page.page.contains(words), "{words}");
    }
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("form-action 'self' https://app.parcel-desk.example;"),
        "{policy}"
    );
    assert!(scene.grant().await.is_none(), "looking gives nothing");
    // Stock and personal data are unticked; what is needed has no box.
    let fields = [
        ("scope", "fulfillments:write"),
        ("where", "all"),
        ("end", "week"),
    ];
    let answer = scene.allow(&mut browser, &path, &page, &fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.page);
    assert!(
        parameter(&answer, "code")
            .unwrap()
            .starts_with("stoa_code_")
    );
    assert_eq!(parameter(&answer, "state").unwrap(), "a-state");
    assert_eq!(parameter(&answer, "iss").unwrap(), "https://stoa.example");
    let grant = scene.grant().await.unwrap();
    assert_eq!(
        grant.scopes,
        "orders:read fulfillments:write".parse().unwrap()
    );
    assert!(!grant.personal_data && grant.locations.is_none());
    let week = Duration::from_hours(7 * 24);
    assert_eq!(
        grant.expires_at,
        Some(scene.installation.clock.now().plus(week))
    );
    let over = browser.get(&path).await;
    assert_eq!(over.status, StatusCode::GONE);
    let list = browser
        .get(&format!("/console/merchants/{}/apps", scene.merchant))
        .await;
    assert!(list.page.contains("Parcel Desk"));
}

#[tokio::test]
async fn asking_again_shows_only_what_is_new_and_never_approves_by_itself() {
    let scene = Scene::new(Role::Owner).await;
    let mut browser = scene.signed_in().await;
    let path = scene.asks("orders:read").await;
    let page = browser.get(&path).await;
    let fields = [("where", "all"), ("end", "year")];
    scene.allow(&mut browser, &path, &page, &fields).await;

    let path = scene.asks("orders:read inventory:read").await;
    let page = browser.get(&path).await;
    assert!(page.page.contains("asks for more access"));
    assert!(page.page.contains("value=\"inventory:read\""));
    assert!(page.page.contains("What it may do already"));
    let version = page.hidden("grant_version").to_owned();
    let fields = [
        ("scope", "inventory:read"),
        ("end", "unchanged"),
        ("grant_version", version.as_str()),
    ];
    let answer = scene.allow(&mut browser, &path, &page, &fields).await;
    assert!(parameter(&answer, "code").is_some());
    let grant = scene.grant().await.unwrap();
    assert_eq!(grant.scopes, "orders:read inventory:read".parse().unwrap());

    let path = scene.asks("orders:read").await;
    let page = browser.get(&path).await;
    assert_eq!(
        page.status,
        StatusCode::OK,
        "nothing is new, and somebody must still continue"
    );
    assert!(page.page.contains("Continue with Parcel Desk?"));
    // What the page showed is not what is there any more.
    let stale = [("end", "unchanged"), ("grant_version", version.as_str())];
    let answer = scene.allow(&mut browser, &path, &page, &stale).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.page.contains("has changed meanwhile"));
    let version = answer.hidden("grant_version").to_owned();
    let fields = [("end", "unchanged"), ("grant_version", version.as_str())];
    let answer = scene.allow(&mut browser, &path, &answer, &fields).await;
    assert!(parameter(&answer, "code").is_some());
}

#[tokio::test]
async fn cancelling_gives_nothing_and_tells_the_app() {
    let scene = Scene::new(Role::Owner).await;
    let mut browser = scene.signed_in().await;
    let path = scene.asks(ASKED).await;
    let page = browser.get(&path).await;
    let answer = browser
        .submit(&page, &path, &[("decision", "cancel")])
        .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(parameter(&answer, "error").unwrap(), "access_denied");
    assert!(scene.grant().await.is_none());
}

#[tokio::test]
async fn a_viewer_is_told_who_must_decide_and_decides_nothing() {
    let scene = Scene::new(Role::Viewer).await;
    let mut browser = scene.signed_in().await;
    let path = scene.asks(ASKED).await;
    let page = browser.get(&path).await;
    assert!(page.page.contains("An owner or manager must decide this"));
    let fields = [("where", "all"), ("end", "week")];
    let answer = scene.allow(&mut browser, &path, &page, &fields).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(scene.grant().await.is_none());
}

#[tokio::test]
async fn what_was_not_asked_for_cannot_be_given_nor_for_a_shop_of_others() {
    let scene = Scene::new(Role::Owner).await;
    let other = scene
        .installation
        .merchant("Another Shop")
        .await
        .to_string();
    let mut browser = scene.signed_in().await;
    let path = scene.asks("orders:read").await;
    let page = browser.get(&path).await;
    let fields = [
        ("decision", "allow"),
        ("merchant", other.as_str()),
        ("where", "all"),
        ("end", "week"),
    ];
    let answer = browser.submit(&page, &path, &fields).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let fields = [
        ("scope", "merchant:admin"),
        ("personal_data", "yes"),
        ("where", "all"),
        ("end", "until_revoked"),
    ];
    let answer = scene.allow(&mut browser, &path, &page, &fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let grant = scene.grant().await.unwrap();
    assert_eq!(grant.scopes, "orders:read".parse().unwrap());
    assert!(!grant.personal_data);
}

#[tokio::test]
async fn an_old_proof_is_made_fresh_before_the_form_is_shown() {
    let scene = Scene::new(Role::Owner).await;
    let mut browser = scene.signed_in().await;
    scene.installation.clock.advance(Duration::from_mins(11));
    let path = scene.asks(ASKED).await;
    let answer = browser.get(&path).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert!(
        answer
            .location()
            .starts_with("/console/step-up?next=%2Fconsole%2Fconsent%2F")
    );
}

#[tokio::test]
async fn an_installed_app_is_narrowed_and_ended() {
    let scene = Scene::new(Role::Owner).await;
    let mut browser = scene.signed_in().await;
    let path = scene.asks(ASKED).await;
    let page = browser.get(&path).await;
    let fields = [
        ("scope", "fulfillments:write"),
        ("scope", "inventory:read"),
        ("personal_data", "yes"),
        ("where", "all"),
        ("end", "year"),
    ];
    scene.allow(&mut browser, &path, &page, &fields).await;
    let grant = scene.grant().await.unwrap();
    assert!(grant.personal_data);
    let base = format!("/console/merchants/{}/apps/{}", scene.merchant, grant.id);
    let page = browser.get(&format!("{base}/change")).await;
    let version = page.hidden("version").to_owned();
    let fields = [
        ("version", version.as_str()),
        ("scope", "inventory:read"),
        ("end", "week"),
    ];
    let answer = browser
        .submit(&page, &format!("{base}/change"), &fields)
        .await;
    assert_eq!(answer.location(), base, "{}", answer.page);
    let narrowed = scene.grant().await.unwrap();
    assert_eq!(
        narrowed.scopes,
        "orders:read inventory:read".parse().unwrap()
    );
    assert!(!narrowed.personal_data && narrowed.epoch > grant.epoch);
    let page = browser.get(&base).await;
    let answer = browser.submit(&page, &format!("{base}/end"), &[]).await;
    assert_eq!(answer.location(), base);
    assert!(scene.grant().await.is_none());
    assert!(
        browser
            .get(&base)
            .await
            .page
            .contains("This access has ended.")
    );
}

#[tokio::test]
async fn another_shops_pages_are_not_there() {
    let scene = Scene::new(Role::Owner).await;
    let other = scene.installation.merchant("Another Shop").await;
    let mut browser = scene.signed_in().await;
    for page in ["apps", "staff", "activity"] {
        let path = format!("/console/merchants/{other}/{page}");
        assert_eq!(browser.get(&path).await.status, StatusCode::NOT_FOUND);
    }
    let session: Session = scene.installation.session(LOGIN).await;
    assert!(session.role_at(other).is_err());
}
