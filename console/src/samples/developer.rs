//! An app developer's pages.

use super::*;

pub(super) fn developer(samples: &mut Samples) {
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
