//! Every page with sample data: that what people write stays text, that every field has its label, that no script or style stands in a page; and, where
//! `STOA_CONSOLE_SAMPLES` names a folder when this is built, the pages themselves, to be looked at.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::wildcard_imports,
    reason = "a test fails by panicking; the samples are one list, parted by the pages that they are of"
)]

use std::{collections::HashSet, fs, path::PathBuf, time::Duration};

use auth::{
    account::{
        Membership, Person, Role,
        invitation::{Invitation, InvitationId, InvitationView, Invited},
        membership::Staff,
        person::ListedPerson,
        session::{Factor, SessionId, SessionSummary},
    },
    client::{
        app::{App, AppInput, ClientKind},
        app_secret::{AppSecret, AppSecretId},
        developer::{AppDetail, AppInstall},
        key::AppKey,
        token_error::{TokenError, TokenErrorId},
    },
    grant::{
        Grant,
        installed::{AppSummary, InstalledApp},
    },
    merchant::Merchant,
};
use axum::http::StatusCode;
use kernel::{
    audit::{AuditEntry, Outcome},
    clock::Timestamp,
    id::{AppId, AuditEntryId, GrantId, LocationId, MerchantId, PersonId},
    scope::ScopeSet,
    version::Version,
};
use maud::Markup;
use uuid::Uuid;

use crate::{
    asset,
    component::Faults,
    csrf::FormToken,
    failure::Words,
    layout::{AccountTab, MerchantTab, OperatorTab, Place as Part, Reader},
    page::{
        activity, consent, developer_app, developer_apps, failure, installed_app, installed_apps,
        invitation, merchants, people, profile, second_factor, security, sessions, sign_in, staff,
        step_up, totp,
    },
    place::Place,
};

/// A name that would be a script if it were not text.
const HOSTILE: &str = "<script>alert(1)</script>\"'&";

mod account;
mod asking;
mod developer;
mod shops;

struct Samples {
    pages: Vec<(&'static str, String)>,
}

impl Samples {
    fn add(&mut self, name: &'static str, page: Markup) {
        self.pages.push((name, page.into_string()));
    }
}

fn now() -> Timestamp {
    "2026-11-21T16:20:00Z".parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number)
}

fn shop(number: u128, name: &str, role: Role) -> Membership {
    Membership {
        merchant: MerchantId::from_uuid(uuid(number)),
        merchant_name: name.to_owned(),
        role,
    }
}

fn long_name() -> String {
    "Schwarzwälderkirschtortenmanufaktur"
        .repeat(6)
        .chars()
        .take(200)
        .collect()
}

fn reader(place: Part, memberships: Vec<Membership>) -> Reader {
    Reader {
        name: "Ines Weber".to_owned(),
        is_operator: false,
        is_developer: false,
        memberships,
        place,
        form: FormToken::sample(),
    }
}

fn one_shop() -> Vec<Membership> {
    vec![shop(1, "Corner Books", Role::Owner)]
}

fn several_shops() -> Vec<Membership> {
    vec![
        shop(1, "Corner Books", Role::Owner),
        shop(2, "Corner Books Online", Role::Manager),
        shop(3, "Halden & Söhne Papierwaren", Role::Viewer),
    ]
}

fn merchant() -> MerchantId {
    MerchantId::from_uuid(uuid(1))
}

fn in_shop(tab: MerchantTab) -> Part {
    Part::Merchant(merchant(), tab)
}

fn scopes(names: &str) -> ScopeSet {
    names.parse().unwrap()
}

fn places() -> Vec<Place> {
    [
        "Shop, Marktgasse 12",
        "Warehouse North",
        "Warehouse South",
        "Pop-up at the fair",
    ]
    .into_iter()
    .enumerate()
    .map(|(number, name)| Place {
        id: LocationId::from_uuid(uuid(100 + u128::try_from(number).unwrap())),
        name: name.to_owned(),
    })
    .collect()
}

fn installed(number: u128, name: &str, end: Option<Timestamp>) -> InstalledApp {
    InstalledApp {
        grant: Grant {
            id: GrantId::from_uuid(uuid(number)),
            merchant_id: merchant(),
            app_id: AppId::from_uuid(uuid(number)),
            scopes: scopes(
                "orders:read orders.pii:read fulfillments:write inventory:read locations:read",
            ),
            locations: Some(vec![LocationId::from_uuid(uuid(101))]),
            personal_data: true,
            expires_at: end,
            revoked_at: None,
            epoch: 1,
            version: 3,
            created_at: at("2026-06-01T08:00:00Z"),
            changed_at: at("2026-09-14T10:12:00Z"),
        },
        app: AppSummary {
            id: AppId::from_uuid(uuid(number)),
            name: name.to_owned(),
            homepage_url: Some("https://parcel-desk.example/about".to_owned()),
        },
        last_used_at: Some(at("2026-11-21T15:00:00Z")),
        consented_by: Some("Ines Weber".to_owned()),
        required_scopes: scopes("orders:read fulfillments:write"),
    }
}

fn failures(samples: &mut Samples) {
    for (name, words) in [
        ("failure-not-found", Words::not_found()),
        ("failure-foreign-form", Words::foreign_form()),
        ("failure-stale-form", Words::stale_form()),
        (
            "failure-throttled",
            Words::throttled(Duration::from_secs(30)),
        ),
        ("failure-unavailable", Words::unavailable()),
        ("failure-broken", Words::broken()),
        (
            "failure-unredirectable",
            Words::unredirectable(
                StatusCode::BAD_REQUEST,
                "The parameter redirect_uri must be one that the app has registered.",
            ),
        ),
        ("failure-request-over", Words::gone("authorization request")),
        ("failure-invitation-over", Words::gone("invitation")),
        (
            "failure-forbidden",
            Words::forbidden("Only an owner of this shop reads its activity."),
        ),
    ] {
        samples.add(name, failure::view(&words));
    }
}

fn samples() -> Vec<(&'static str, String)> {
    let mut samples = Samples { pages: Vec::new() };
    asking::proofs(&mut samples);
    asking::invitations(&mut samples);
    asking::consents(&mut samples);
    shops::shops(&mut samples);
    account::account(&mut samples);
    account::operator(&mut samples);
    developer::developer(&mut samples);
    failures(&mut samples);
    samples.pages
}

/// The values of `attribute` of every `tag` of a page.
fn attributes<'p>(page: &'p str, tag: &str, attribute: &str) -> Vec<Option<&'p str>> {
    let open = format!("<{tag} ");
    page.split(&open)
        .skip(1)
        .map(|rest| {
            let tag = rest.split('>').next().unwrap();
            let (_, value) = tag.split_once(&format!("{attribute}=\""))?;
            value.split('"').next()
        })
        .collect()
}

#[test]
fn what_people_write_stays_text_and_no_script_or_style_stands_in_a_page() {
    for (name, page) in samples() {
        assert!(!page.contains("<script>"), "{name}");
        assert!(!page.contains("alert(1)</"), "{name}");
        assert!(!page.contains("<style"), "{name}");
        assert!(!page.contains(" style="), "{name}");
        assert!(!page.contains("javascript:"), "{name}");
        for event in [" onclick=", " onload=", " onsubmit=", " onerror="] {
            assert!(!page.contains(event), "{name}");
        }
        for source in attributes(&page, "script", "src") {
            assert_eq!(source, Some(asset::PASSKEY.path()), "{name}");
        }
    }
}

#[test]
fn every_page_has_one_heading_a_title_and_landmarks() {
    for (name, page) in samples() {
        assert_eq!(page.matches("<h1>").count(), 1, "{name}");
        assert_eq!(page.matches("<main ").count(), 1, "{name}");
        assert!(page.contains("<html lang=\"en\">"), "{name}");
        assert!(page.contains("class=\"skip\""), "{name}");
        let (_, title) = page.split_once("<title>").unwrap();
        assert!(
            title.split("</title>").next().unwrap().len() > " · Stoa".len(),
            "{name}"
        );
    }
}

#[test]
fn every_field_has_a_label_and_no_id_stands_twice() {
    for (name, page) in samples() {
        let labels: HashSet<_> = attributes(&page, "label", "for")
            .into_iter()
            .flatten()
            .collect();
        for tag in ["input", "select", "textarea"] {
            let ids = attributes(&page, tag, "id");
            let kinds = attributes(&page, tag, "type");
            let hides = attributes(&page, tag, "aria-hidden");
            for ((id, kind), hidden) in ids.iter().zip(&kinds).zip(&hides) {
                let labelled = id.is_some_and(|id| labels.contains(id));
                assert!(
                    labelled || *kind == Some("hidden") || hidden.is_some(),
                    "{name}: {tag} {id:?} {kind:?}"
                );
            }
        }
        let mut seen = HashSet::new();
        for id in page
            .split(" id=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
        {
            assert!(seen.insert(id), "{name}: {id} stands twice");
        }
    }
}

#[test]
fn every_form_is_a_post_with_a_token() {
    for (name, page) in samples() {
        for form in page.split("<form ").skip(1) {
            let form = form.split("</form>").next().unwrap();
            assert!(form.contains("method=\"post\""), "{name}");
            assert!(form.contains("name=\"form_token\""), "{name}");
        }
    }
}

#[test]
fn consent_marks_what_is_needed_and_ticks_what_may_be_unticked() {
    let page = asking::Asked::new().page().into_string();
    assert_eq!(page.matches("<span class=\"tag\">needed</span>").count(), 2);
    assert!(page.contains("name=\"scope\" value=\"inventory:read\" checked"));
    assert!(
        !page.contains("value=\"orders:read\""),
        "what is needed has no box"
    );
    assert!(page.contains("name=\"personal_data\""));
    assert!(
        !page.contains("value=\"orders.pii:read\""),
        "personal data has a box of its own"
    );
    assert!(
        page.contains("not verified")
            || page.contains("Neither its name nor its maker is verified")
    );
}

#[test]
fn the_samples_are_written_where_somebody_wants_to_look_at_them() {
    let Some(folder) = option_env!("STOA_CONSOLE_SAMPLES") else {
        return;
    };
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder).unwrap();
    for (name, page) in samples() {
        let style = include_str!("../assets/console.css");
        let page = page.replace(
            &format!("<link rel=\"stylesheet\" href=\"{}\">", asset::STYLE.path()),
            &format!("<style>{style}</style>"),
        );
        fs::write(folder.join(format!("{name}.html")), page).unwrap();
    }
}
