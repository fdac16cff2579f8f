//! An app that asks, in every state; signing in and being invited.

use super::*;

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

pub(super) struct Asked {
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
    pub(super) fn new() -> Self {
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

    pub(super) fn page(&self) -> Markup {
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

pub(super) fn consents(samples: &mut Samples) {
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

pub(super) fn proofs(samples: &mut Samples) {
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
    let throttled = Faults::general(crate::component::throttled_words(Duration::from_mins(4)));
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

pub(super) fn invitations(samples: &mut Samples) {
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
