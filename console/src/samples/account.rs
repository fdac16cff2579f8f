//! One's own account, and the installation's pages.

use super::*;

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

pub(super) fn account(samples: &mut Samples) {
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

pub(super) fn operator(samples: &mut Samples) {
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
