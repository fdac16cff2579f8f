//! Every page with sample data: that what people write stays text, that every field has its label, that no script or style stands in a page; and, where
//! `STOA_CONSOLE_SAMPLES` names a folder, the pages themselves, to be looked at.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
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

fn asker(name: &str) -> consent::Asker {
    consent::Asker {
        name: name.to_owned(),
        homepage_host: Some("parcel-desk.example".to_owned()),
        returns_to: "app.parcel-desk.example".to_owned(),
        is_own: false,
    }
}

fn ends() -> Vec<consent::EndChoice> {
    [
        ("day", Some("2026-11-22T16:20:00Z")),
        ("week", Some("2026-11-28T16:20:00Z")),
        ("month", Some("2026-12-21T16:20:00Z")),
        ("year", Some("2027-11-21T16:20:00Z")),
        ("until_revoked", None),
    ]
    .into_iter()
    .map(|(name, end)| consent::EndChoice {
        name,
        words: consent::end_words(name, None),
        ends_at: end.map(at),
    })
    .collect()
}

struct Asked {
    asker: consent::Asker,
    memberships: Vec<Membership>,
    scopes: ScopeSet,
    required: ScopeSet,
    personal_data: bool,
    places: Vec<Place>,
    ends: Vec<consent::EndChoice>,
    existing: Option<consent::Existing>,
    chosen: consent::Chosen,
    faults: Faults,
}

impl Asked {
    fn new() -> Self {
        let all = scopes("orders:read fulfillments:write inventory:read locations:read");
        Self {
            asker: asker("Parcel Desk"),
            memberships: one_shop(),
            scopes: all,
            required: scopes("orders:read fulfillments:write"),
            personal_data: true,
            places: places(),
            ends: ends(),
            existing: None,
            chosen: consent::Chosen {
                scopes: all,
                personal_data: true,
                places: None,
                end: "year".to_owned(),
            },
            faults: Faults::NONE,
        }
    }

    fn page(&self) -> Markup {
        consent::view(&consent::View {
            reader: &reader(Part::Aside, self.memberships.clone()),
            form: &FormToken::sample(),
            handle: "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE",
            asker: &self.asker,
            merchant: self.memberships.first().unwrap(),
            may_choose: self.memberships.len() > 1,
            scopes: self.scopes,
            required: self.required,
            personal_data: self.personal_data,
            places: &self.places,
            ends: &self.ends,
            existing: self.existing.as_ref(),
            chosen: &self.chosen,
            expires_at: at("2026-11-21T16:30:00Z"),
            faults: &self.faults,
        })
    }
}

fn existing() -> consent::Existing {
    consent::Existing {
        version: 3,
        scopes: scopes("orders:read fulfillments:write"),
        personal_data: false,
        places: Some(vec!["Warehouse North".to_owned()]),
        expires_at: Some(at("2027-03-03T14:00:00Z")),
    }
}

fn consents(samples: &mut Samples) {
    samples.add("consent", Asked::new().page());
    let several = Asked {
        memberships: several_shops(),
        ..Asked::new()
    };
    samples.add("consent-several-shops", several.page());
    let everything = Asked {
        asker: asker("Everything Enterprise Resource Planning"),
        scopes: ScopeSet::all(),
        required: scopes("catalog:write"),
        chosen: consent::Chosen {
            scopes: ScopeSet::all(),
            ..Asked::new().chosen
        },
        ..Asked::new()
    };
    samples.add("consent-every-scope", everything.page());
    let long = Asked {
        asker: consent::Asker {
            homepage_host: Some(format!("{}.example", "a".repeat(60))),
            ..asker(&long_name())
        },
        memberships: vec![shop(1, &long_name(), Role::Owner)],
        places: (0..60)
            .map(|number| Place {
                id: LocationId::from_uuid(uuid(200 + number)),
                name: if number == 3 {
                    long_name()
                } else {
                    format!("Branch {number}")
                },
            })
            .collect(),
        chosen: consent::Chosen {
            places: Some(Vec::new()),
            ..Asked::new().chosen
        },
        faults: Faults::at("locations", "Choose at least one location."),
        ..Asked::new()
    };
    samples.add("consent-long-names-error", long.page());
    let hostile = Asked {
        asker: asker(HOSTILE),
        memberships: vec![shop(1, HOSTILE, Role::Owner)],
        ..Asked::new()
    };
    samples.add("consent-hostile", hostile.page());
    let mut with_unchanged = ends();
    with_unchanged.insert(
        0,
        consent::EndChoice {
            name: "unchanged",
            words: consent::end_words("unchanged", None),
            ends_at: Some(at("2027-03-03T14:00:00Z")),
        },
    );
    let again = Asked {
        scopes: scopes("inventory:read"),
        required: scopes("orders:read"),
        existing: Some(existing()),
        ends: with_unchanged,
        chosen: consent::Chosen {
            scopes: scopes("inventory:read"),
            personal_data: true,
            places: None,
            end: "unchanged".to_owned(),
        },
        ..Asked::new()
    };
    samples.add("consent-again-more", again.page());
    let nothing_new = Asked {
        scopes: ScopeSet::default(),
        personal_data: false,
        existing: Some(existing()),
        ..Asked::new()
    };
    samples.add("consent-again-nothing-new", nothing_new.page());
    let reader = reader(Part::Aside, several_shops());
    let (form, handle) = (FormToken::sample(), "handle");
    samples.add(
        "consent-choose-shop",
        consent::choice(&consent::Choice {
            reader: &reader,
            form: &form,
            handle,
            asker: &asker("Parcel Desk"),
            memberships: &reader.memberships,
        }),
    );
    for (name, hindrance) in [
        (
            "consent-viewer",
            consent::Hindrance::Viewer("Corner Books".to_owned()),
        ),
        ("consent-no-shop", consent::Hindrance::NoShop),
    ] {
        let asker = asker("Parcel Desk");
        samples.add(
            name,
            consent::hindered(&reader, &form, handle, &asker, &hindrance),
        );
    }
}

fn proofs(samples: &mut Samples) {
    let form = FormToken::sample();
    let view = |next: &'static str, login: &'static str, faults: &Faults, passkeys, upstream| {
        sign_in::view(&sign_in::View {
            form: &form,
            next,
            login,
            faults,
            passkeys,
            upstream,
        })
    };
    samples.add(
        "sign-in",
        view("/console/", "", &Faults::NONE, true, Some("Example ID")),
    );
    let refused = Faults::general(sign_in::NOT_ACCEPTED);
    samples.add(
        "sign-in-refused",
        view(
            "/console/consent/a",
            "ines@corner-books.example",
            &refused,
            false,
            None,
        ),
    );
    let throttled = Faults::general(crate::component::throttled_words(Duration::from_secs(240)));
    samples.add(
        "sign-in-throttled",
        view("/console/", HOSTILE, &throttled, false, None),
    );
    for (name, faults) in [
        ("second-factor", Faults::NONE),
        (
            "second-factor-refused",
            Faults::general(second_factor::NOT_ACCEPTED),
        ),
    ] {
        samples.add(
            name,
            second_factor::view(&second_factor::View {
                form: &form,
                faults: &faults,
            }),
        );
    }
    samples.add(
        "step-up",
        step_up::view(&step_up::View {
            reader: &reader(Part::Aside, one_shop()),
            form: &form,
            login: "ines@corner-books.example",
            next: "/console/",
            faults: &Faults::NONE,
            password: true,
            totp: true,
            passkey: true,
            upstream: Some("Example ID"),
        }),
    );
}

fn invitations(samples: &mut Samples) {
    let form = FormToken::sample();
    let invited = InvitationView {
        invited: Invited::Staff {
            merchant: merchant(),
            role: Role::Manager,
        },
        merchant_name: Some("Corner Books".to_owned()),
        inviter_name: Some("Ines Weber".to_owned()),
        label: Some("Jonas, from the warehouse".to_owned()),
        expires_at: at("2026-11-28T16:20:00Z"),
    };
    let view = |reader: Option<&Reader>, faults: &Faults| {
        invitation::view(&invitation::View {
            reader,
            form: &form,
            token: "token",
            invitation: &invited,
            login: "jonas",
            name: "Jonas Halden",
            upstream: Some("Example ID"),
            faults,
        })
    };
    samples.add("invitation", view(None, &Faults::NONE));
    let faults = Faults::of_fields(&[
        kernel::problem::FieldError::at("/login", "taken", "is taken by somebody else"),
        kernel::problem::FieldError::at(
            "/password",
            "weak",
            "must be harder to guess: this is one of the most common passwords",
        ),
    ]);
    samples.add("invitation-refused", view(None, &faults));
    let reader = reader(Part::Aside, one_shop());
    samples.add("invitation-signed-in", view(Some(&reader), &Faults::NONE));
}

fn invitation_of(number: u128, label: Option<&str>, role: Role) -> Invitation {
    Invitation {
        id: InvitationId::from_uuid(uuid(number)),
        invited: Invited::Staff {
            merchant: merchant(),
            role,
        },
        label: label.map(ToOwned::to_owned),
        invited_by: None,
        created_at: now(),
        expires_at: at("2026-11-28T16:20:00Z"),
    }
}

fn member(number: u128, name: &str, role: Role) -> Staff {
    Staff {
        person: PersonId::from_uuid(uuid(number)),
        login: format!("{}@corner-books.example", number),
        name: name.to_owned(),
        role,
        is_disabled: role == Role::Viewer,
        created_at: at("2025-02-01T09:00:00Z"),
    }
}

fn shops(samples: &mut Samples) {
    let form = FormToken::sample();
    let apps = reader(in_shop(MerchantTab::Apps), several_shops());
    let list = |apps_of: &[InstalledApp]| {
        installed_apps::view(&installed_apps::View {
            reader: &apps,
            merchant: merchant(),
            apps: apps_of,
            now: now(),
        })
    };
    let mut ended = installed(9, "Old Label Printer", None);
    ended.grant.revoked_at = Some(at("2026-11-10T12:00:00Z"));
    let mut fresh = installed(8, HOSTILE, None);
    fresh.last_used_at = None;
    fresh.grant.personal_data = false;
    fresh.grant.locations = None;
    samples.add(
        "apps",
        list(&[
            installed(5, "Parcel Desk", Some(at("2026-11-24T09:00:00Z"))),
            installed(6, &long_name(), Some(at("2027-11-21T16:20:00Z"))),
            fresh,
            ended.clone(),
        ]),
    );
    samples.add("apps-empty", list(&[]));
    let names = ["Warehouse North".to_owned()];
    for (name, app, decides) in [
        (
            "app",
            installed(5, "Parcel Desk", Some(at("2026-11-24T09:00:00Z"))),
            true,
        ),
        ("app-viewer", installed(5, &long_name(), None), false),
        ("app-ended", ended, true),
    ] {
        samples.add(
            name,
            installed_app::view(&installed_app::View {
                reader: &apps,
                form: &form,
                app: &app,
                places: Some(&names),
                decides,
                now: now(),
            }),
        );
    }
    let app = installed(5, "Parcel Desk", Some(at("2026-11-24T09:00:00Z")));
    samples.add(
        "app-change",
        installed_app::change_view(&installed_app::ChangeView {
            reader: &apps,
            form: &form,
            app: &app,
            places: &places(),
            chosen: &installed_app::Chosen::of(&app),
            faults: &Faults::NONE,
            now: now(),
        }),
    );
    staff_pages(samples);
    activity_page(samples);
}

fn staff_pages(samples: &mut Samples) {
    let form = FormToken::sample();
    let reader = reader(in_shop(MerchantTab::Staff), one_shop());
    let members = [
        member(20, "Ines Weber", Role::Owner),
        member(21, &long_name(), Role::Manager),
        member(22, "Jonas Halden", Role::Viewer),
    ];
    let open = [
        invitation_of(30, Some("Jonas, from the warehouse"), Role::Manager),
        invitation_of(31, None, Role::Viewer),
    ];
    samples.add(
        "staff",
        staff::view(&staff::View {
            reader: &reader,
            form: &form,
            merchant: merchant(),
            person: PersonId::from_uuid(uuid(20)),
            staff: &members,
            invitations: &open,
        }),
    );
    samples.add(
        "staff-invite",
        staff::invite_view(&staff::InviteView {
            reader: &reader,
            form: &form,
            merchant: merchant(),
            label: "",
            role: Role::Viewer,
            faults: &Faults::NONE,
        }),
    );
    let link =
        "https://stoa.example/console/invitations/AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE";
    let back = ("/console/", "Staff");
    samples.add(
        "staff-invited",
        staff::invited_view(&reader, open.first().unwrap(), link, back),
    );
    let last_owner = Faults::general("This is the last owner: a shop keeps one.");
    samples.add(
        "staff-member",
        staff::member_view(&staff::MemberView {
            reader: &reader,
            form: &form,
            merchant: merchant(),
            member: members.first().unwrap(),
            is_self: true,
            faults: &last_owner,
        }),
    );
}

fn activity_page(samples: &mut Samples) {
    let reader = reader(in_shop(MerchantTab::Activity), one_shop());
    let line = |number: u128, action: &str, outcome, who: &str, app: Option<&str>| activity::Line {
        entry: AuditEntry {
            id: AuditEntryId::from_uuid(uuid(number)),
            occurred_at: now(),
            action: action.to_owned(),
            outcome,
            person_id: None,
            app_id: None,
            target_type: None,
            target_id: None,
            details: serde_json::Value::Null,
            address: Some("192.0.2.7".to_owned()),
            user_agent: None,
            request_id: None,
        },
        who: who.to_owned(),
        app: app.map(ToOwned::to_owned),
    };
    let lines = [
        line(
            40,
            "grant.consented",
            Outcome::Succeeded,
            "Ines Weber",
            Some("Parcel Desk"),
        ),
        line(
            41,
            "refresh_token.reused",
            Outcome::Refused,
            "The app",
            Some(&long_name()),
        ),
        line(42, "membership.changed", Outcome::Succeeded, HOSTILE, None),
    ];
    let view = |lines: &[activity::Line], next| {
        activity::view(&activity::View {
            reader: &reader,
            merchant: merchant(),
            lines,
            is_first: next != Some("cursor"),
            next,
        })
    };
    samples.add("activity", view(&lines, Some("cursor")));
    samples.add("activity-empty", view(&[], None));
}

fn person() -> Person {
    Person {
        id: PersonId::from_uuid(uuid(20)),
        login: "ines@corner-books.example".to_owned(),
        name: "Ines Weber".to_owned(),
        is_operator: true,
        is_developer: true,
        has_password: true,
        has_totp: true,
        version: 4,
        created_at: at("2025-02-01T09:00:00Z"),
    }
}

fn account(samples: &mut Samples) {
    let form = FormToken::sample();
    let mut everything = reader(Part::Account(AccountTab::Profile), several_shops());
    everything.is_operator = true;
    everything.is_developer = true;
    samples.add(
        "profile",
        profile::view(&profile::View {
            reader: &everything,
            form: &form,
            person: &person(),
            name: "Ines Weber",
            memberships: &several_shops(),
            faults: &Faults::NONE,
        }),
    );
    let nobody = reader(Part::Account(AccountTab::Profile), Vec::new());
    samples.add(
        "profile-refused",
        profile::view(&profile::View {
            reader: &nobody,
            form: &form,
            person: &Person {
                name: long_name(),
                is_operator: false,
                is_developer: false,
                ..person()
            },
            name: "",
            memberships: &[],
            faults: &Faults::at("name", "This must not be empty."),
        }),
    );
    everything.place = Part::Account(AccountTab::Security);
    let passkeys = [
        security::Passkey {
            id: "a".to_owned(),
            name: "Laptop".to_owned(),
            created_at: at("2026-01-02T03:04:05Z"),
            last_used_at: Some(now()),
        },
        security::Passkey {
            id: "b".to_owned(),
            name: long_name(),
            created_at: at("2026-01-02T03:04:05Z"),
            last_used_at: None,
        },
    ];
    let view = |person: &Person, codes, passkeys| {
        security::view(&security::View {
            reader: &everything,
            form: &form,
            person,
            recovery_codes: codes,
            passkeys,
            upstream: Some(("Example ID", true)),
            faults: &Faults::NONE,
            now: now(),
        })
    };
    samples.add("security", view(&person(), 2, Some(&passkeys)));
    let plain = Person {
        has_totp: false,
        ..person()
    };
    samples.add("security-plain", view(&plain, 0, None));
    samples.add(
        "password",
        security::password_view(
            &everything,
            &form,
            &person(),
            &Faults::at("password", "This must be harder to guess."),
        ),
    );
    samples.add(
        "passkey-new",
        security::new_passkey_view(&everything, &form, "", &Faults::NONE),
    );
    let secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";
    samples.add(
        "totp",
        totp::view(&totp::View {
            reader: &everything,
            form: &form,
            ceremony: "ceremony",
            secret,
            url: &format!(
                "otpauth://totp/Stoa:ines%40corner-books.example?secret={secret}&issuer=Stoa"
            ),
            faults: &Faults::NONE,
        }),
    );
    let codes = ["ABCD-EFGH-IJKL-MNOP"; 10];
    samples.add(
        "recovery-codes",
        totp::codes_view(&everything, &codes, true),
    );
    everything.place = Part::Account(AccountTab::Sessions);
    let summary = |number: u128, agent: &str, is_current| SessionSummary {
        id: SessionId::from_uuid(uuid(number)),
        created_at: at("2026-11-20T07:30:00Z"),
        last_seen_at: now(),
        address: Some("2001:db8:1:2::/64".to_owned()),
        user_agent: Some(agent.to_owned()),
        factors: vec![Factor::Password, Factor::Totp],
        is_current,
    };
    samples.add("sessions", sessions::view(&sessions::View {
        reader: &everything,
        form: &form,
        sessions: &[
            summary(50, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36", true),
            summary(51, "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Safari/604.1", false),
            summary(52, HOSTILE, false),
        ],
    }));
}

fn operator(samples: &mut Samples) {
    let form = FormToken::sample();
    let mut reader = reader(Part::Operator(OperatorTab::Merchants), one_shop());
    reader.is_operator = true;
    let merchants_of = [
        Merchant {
            id: merchant(),
            name: "Corner Books".to_owned(),
            created_at: now(),
        },
        Merchant {
            id: MerchantId::from_uuid(uuid(2)),
            name: long_name(),
            created_at: now(),
        },
    ];
    for (name, merchants_of) in [("merchants", &merchants_of[..]), ("merchants-empty", &[])] {
        samples.add(
            name,
            merchants::view(&merchants::View {
                reader: &reader,
                merchants: merchants_of,
                next: Some("cursor"),
            }),
        );
    }
    reader.place = Part::Operator(OperatorTab::People);
    let other = Person {
        id: PersonId::from_uuid(uuid(21)),
        name: HOSTILE.to_owned(),
        is_operator: false,
        ..person()
    };
    let listed = [
        ListedPerson {
            person: person(),
            merchants: 2,
            disabled_at: None,
        },
        ListedPerson {
            person: other,
            merchants: 0,
            disabled_at: Some(now()),
        },
        ListedPerson {
            person: Person {
                id: PersonId::from_uuid(uuid(22)),
                name: long_name(),
                ..person()
            },
            merchants: 1,
            disabled_at: None,
        },
    ];
    samples.add(
        "people",
        people::view(&people::View {
            reader: &reader,
            form: &form,
            person: PersonId::from_uuid(uuid(20)),
            people: &listed,
            invitations: &[],
            next: None,
        }),
    );
    samples.add("people-invite", people::invite_view(&reader, &form));
}

fn developer(samples: &mut Samples) {
    let form = FormToken::sample();
    let mut reader = reader(Part::Developer, one_shop());
    reader.is_developer = true;
    let app = |number: u128, name: &str, kind| App {
        id: AppId::from_uuid(uuid(number)),
        name: name.to_owned(),
        kind,
        redirect_uris: vec![
            "https://app.parcel-desk.example/callback".to_owned(),
            "http://127.0.0.1/callback".to_owned(),
        ],
        scopes: Some(scopes("orders:read fulfillments:write orders.pii:read")),
        required_scopes: scopes("orders:read"),
        homepage_url: Some("https://parcel-desk.example".to_owned()),
        version: Version::FIRST,
        created_at: at("2026-06-01T08:00:00Z"),
    };
    let parcel_desk = app(60, "Parcel Desk", ClientKind::Confidential);
    let apps = [
        parcel_desk.clone(),
        app(61, &long_name(), ClientKind::Public),
        app(62, HOSTILE, ClientKind::Public),
    ];
    samples.add("developer-apps", developer_apps::view(&reader, &apps));
    samples.add("developer-apps-empty", developer_apps::view(&reader, &[]));
    let input = AppInput {
        name: HOSTILE.to_owned(),
        redirect_uris: vec!["http://parcel-desk.example".to_owned()],
        scopes: Some(scopes("orders:read")),
        ..AppInput::default()
    };
    let faults = Faults::of_fields(&[
        kernel::problem::FieldError::at("/redirectUris/0", "invalid", "must be https"),
        kernel::problem::FieldError::at(
            "/requiredScopes",
            "invalid",
            "must be among those that the app may ask for",
        ),
    ]);
    samples.add(
        "developer-app-new",
        developer_apps::new_view(&developer_apps::NewView {
            reader: &reader,
            form: &form,
            input: &input,
            faults: &faults,
        }),
    );
    samples.add(
        "developer-app-settings",
        developer_app::settings_view(&developer_app::SettingsView {
            reader: &reader,
            form: &form,
            app: &parcel_desk,
            input: &input,
            faults: &Faults::NONE,
        }),
    );
    samples.add(
        "developer-secret",
        developer_apps::secret_view(
            &reader,
            parcel_desk.id,
            "Parcel Desk",
            &format!("stoa_secret_{}", "a1B2c3D4".repeat(6)),
            true,
        ),
    );
    let grant = installed(5, "Parcel Desk", Some(at("2027-03-03T14:00:00Z"))).grant;
    let install = |name: &str, last_used_at| AppInstall {
        merchant_id: merchant(),
        merchant_name: name.to_owned(),
        grant: grant.clone(),
        last_used_at,
    };
    let detail = AppDetail {
        secrets: vec![
            AppSecret {
                id: AppSecretId::from_uuid(uuid(70)),
                hint: "x4Qz".to_owned(),
                created_at: now(),
                expires_at: None,
            },
            AppSecret {
                id: AppSecretId::from_uuid(uuid(71)),
                hint: String::new(),
                created_at: at("2026-06-01T08:00:00Z"),
                expires_at: Some(at("2026-11-22T16:20:00Z")),
            },
        ],
        keys: vec![AppKey {
            kid: "deployment-1".to_owned(),
            kty: "EC",
            algorithms: Vec::new(),
            created_at: now(),
        }],
        installs: vec![
            install("Corner Books", Some(now())),
            install(&long_name(), None),
        ],
        living_installs: 2,
        errors: vec![TokenError {
            id: TokenErrorId::from_uuid(uuid(80)),
            occurred_at: now(),
            grant_type: Some("refresh_token".to_owned()),
            error: "invalid_grant".to_owned(),
            description: "The refresh token has expired, was revoked, or never was.".to_owned(),
            address: Some("192.0.2.7".to_owned()),
            request_id: None,
        }],
        app: parcel_desk,
    };
    let fresh = AppDetail {
        secrets: Vec::new(),
        keys: Vec::new(),
        installs: Vec::new(),
        living_installs: 0,
        errors: Vec::new(),
        ..detail.clone()
    };
    for (name, detail) in [("developer-app", &detail), ("developer-app-fresh", &fresh)] {
        samples.add(
            name,
            developer_app::view(&developer_app::View {
                reader: &reader,
                form: &form,
                detail,
                jwk: "",
                faults: &Faults::NONE,
                now: now(),
            }),
        );
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
    proofs(&mut samples);
    invitations(&mut samples);
    consents(&mut samples);
    shops(&mut samples);
    account(&mut samples);
    operator(&mut samples);
    developer(&mut samples);
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
    let page = Asked::new().page().into_string();
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
#[allow(
    clippy::disallowed_methods,
    reason = "says where samples are to be written, which is nobody's configuration"
)]
fn the_samples_are_written_where_somebody_wants_to_look_at_them() {
    let Ok(folder) = std::env::var("STOA_CONSOLE_SAMPLES") else {
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
