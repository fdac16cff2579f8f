//! A shop's pages.

use super::*;

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
        login: format!("{number}@corner-books.example"),
        name: name.to_owned(),
        role,
        is_disabled: role == Role::Viewer,
        created_at: at("2025-02-01T09:00:00Z"),
    }
}

pub(super) fn shops(samples: &mut Samples) {
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
