//! Redirect URIs and open redirects (RFC 9700, sections 4.1 and 4.11).

use auth::{
    Error,
    account::Role,
    client::app::{AppInput, ClientKind},
};
use axum::http::{StatusCode, header};

use super::Scene;
use crate::flow::{CALLBACK, approve, encoded, handle_of, location, parameter, with};

/// What an attacker makes of `https://desk.example/callback`, and of the app's other address `https://desk.example/back?tenant=7`.
const VARIANTS: [&str; 47] = [
    // Elsewhere altogether.
    "https://evil.example/callback",
    "https://evil.example/?https://desk.example/callback",
    "https://evil.example/https://desk.example/callback",
    "//evil.example/callback",
    "\\\\evil.example\\callback",
    // Below, beside and above the path; what a comparison by prefix takes.
    "https://desk.example/callback/",
    "https://desk.example/callback/more",
    "https://desk.example/callback2",
    "https://desk.example/callback;a=b",
    "https://desk.example/callback/../evil",
    "https://desk.example/callback/..;/evil",
    "https://desk.example/a/../callback",
    "https://desk.example/./callback",
    "https://desk.example//callback",
    "https://desk.example/",
    "https://desk.example",
    // Another query, or part of one.
    "https://desk.example/callback?",
    "https://desk.example/callback?next=https://evil.example",
    "https://desk.example/callback?tenant=7",
    "https://desk.example/back",
    "https://desk.example/back?tenant=8",
    "https://desk.example/back?tenant=7&tenant=8",
    "https://desk.example/back?tenant=7&next=//evil.example",
    // A fragment, which eats the answer.
    "https://desk.example/callback#",
    "https://desk.example/callback#evil",
    // Another host: below, above, beside, with a dot at its end, with a user, with a backslash.
    "https://sub.desk.example/callback",
    "https://desk.example.evil.example/callback",
    "https://evildesk.example/callback",
    "https://desk.example./callback",
    "https://desk.example@evil.example/callback",
    "https://desk.example:pass@evil.example/callback",
    "https://user@desk.example/callback",
    "https://evil.example\\@desk.example/callback",
    "https://desk.example%2eevil.example/callback",
    "https://desk.example%00.evil.example/callback",
    // Ports are free on loopback addresses alone.
    "https://desk.example:443/callback",
    "https://desk.example:8443/callback",
    // Another scheme, and other letters.
    "http://desk.example/callback",
    "javascript://desk.example/callback%0aalert(1)",
    "HTTPS://desk.example/callback",
    "https://DESK.example/callback",
    "https://desk.example/CALLBACK",
    "https://desk.example/%63allback",
    "https://desk.example/callback%20",
    " https://desk.example/callback",
    "https://desk.example/callback\r\nLocation: https://evil.example",
    "https://desk.example/callback\0",
];

/// The app of the table, at home on this machine too.
fn input() -> AppInput {
    AppInput {
        kind: ClientKind::Public,
        redirect_uris: vec![
            CALLBACK.to_owned(),
            "https://desk.example/back?tenant=7".to_owned(),
            "http://127.0.0.1/callback".to_owned(),
        ],
        ..AppInput::named("Parcel Desk")
    }
}

async fn scene() -> Scene {
    let mut scene = Scene::new(ClientKind::Public).await;
    scene.desk = scene.installation.desk_of(input()).await;
    scene
}

#[tokio::test]
async fn no_variant_of_a_registered_redirect_uri_is_gone_to() {
    let scene = scene().await;
    let request = scene.desk.request("orders:read");
    for uri in VARIANTS {
        let honest = with(&request, "redirect_uri", Some(uri));
        // Nor if something else is wrong too, which would be told to a redirect URI.
        let broken = with(&honest, "response_type", Some("token"));
        let both = [honest.as_slice(), &[("redirect_uri", CALLBACK.to_owned())]].concat();
        let mut reversed = both.clone();
        reversed.reverse();
        for parameters in [honest, broken, both, reversed] {
            let form = encoded(&parameters);
            for answer in [
                scene.process.authorize(&parameters).await,
                scene.post("/oauth/authorize", &[], &form).await,
            ] {
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri:?}: {form}");
                assert!(!answer.headers.contains_key(header::LOCATION), "{form}");
                assert!(!answer.headers.contains_key(header::REFRESH), "{form}");
            }
        }
    }
    assert_eq!(scene.waiting().await, 0, "nothing is kept of them");
    for uri in input().redirect_uris {
        let honest = with(&request, "redirect_uri", Some(&uri));
        handle_of(&scene.process.authorize(&honest).await);
    }
}

#[tokio::test]
async fn of_a_loopback_address_the_port_may_differ_and_nothing_else() {
    let scene = scene().await;
    let request = scene.desk.request("orders:read");
    for uri in [
        "http://127.0.0.1:1/callback",
        "http://127.0.0.1:65535/callback",
    ] {
        let request = with(&request, "redirect_uri", Some(uri));
        handle_of(&scene.process.authorize(&request).await);
    }
    for uri in [
        "http://localhost/callback",
        "http://localhost:4711/callback",
        "http://127.0.0.2/callback",
        "http://127.1/callback",
        "http://0.0.0.0/callback",
        "http://[::1]/callback",
        "http://[::ffff:127.0.0.1]/callback",
        "https://127.0.0.1/callback",
        "http://127.0.0.1:4711/other",
        "http://127.0.0.1:4711/callback?a=b",
        "http://127.0.0.1:4711@evil.example/callback",
        "http://127.0.0.1.evil.example/callback",
        "http://127.0.0.1:4711.evil.example/callback",
        "http://127.0.0.1:/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:65536/callback",
    ] {
        let request = with(&request, "redirect_uri", Some(uri));
        let answer = scene.process.authorize(&request).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri}");
        assert!(!answer.headers.contains_key(header::LOCATION), "{uri}");
    }
}

#[tokio::test]
async fn an_app_is_answered_at_its_own_address_and_not_at_another_apps() {
    let scene = scene().await;
    // What one app has registered is nothing to another.
    let other = scene
        .installation
        .desk_of(AppInput {
            redirect_uris: vec!["https://evil.example/callback".to_owned()],
            ..AppInput::named("Evil Desk")
        })
        .await;
    let request = scene.desk.request("orders:read");
    for (client, uri) in [
        (scene.desk.id(), "https://evil.example/callback"),
        (other.id(), CALLBACK),
        ("app_01jd3x5k8vfm7b2c9q0r4t6w8y".to_owned(), CALLBACK),
    ] {
        let request = with(&request, "client_id", Some(&client));
        let request = with(&request, "redirect_uri", Some(uri));
        let answer = scene.process.authorize(&request).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{client} {uri}");
        assert!(
            !answer.headers.contains_key(header::LOCATION),
            "{client} {uri}"
        );
    }
}

#[tokio::test]
async fn an_address_that_the_app_gave_up_is_not_gone_to_by_a_request_that_waits() {
    let scene = scene().await;
    let request = scene.desk.request("orders:read");
    let handle = handle_of(&scene.process.authorize(&request).await);
    let authorizations = scene.installation.authorizations();
    authorizations.pending(&handle).await.unwrap();
    scene
        .installation
        .execute("update apps set redirect_uris = array['https://desk.example/new'] where name = 'Parcel Desk'")
        .await;
    let caller = scene.installation.decider();
    let session = scene.installation.session(scene.desk.merchant, Role::Owner);
    let merchant = scene.desk.merchant;
    let decision = approve("orders:read");
    let given = authorizations
        .consent(&caller, &session, &handle, merchant, decision)
        .await;
    assert!(matches!(given, Err(Error::Gone(_))), "{given:?}");
    let refused = authorizations.refuse(&caller, &session, &handle).await;
    assert!(matches!(refused, Err(Error::Gone(_))), "{refused:?}");
}

#[tokio::test]
async fn what_an_app_has_in_its_own_address_stays_and_answers_come_after_it() {
    let scene = scene().await;
    let request = with(
        &scene.desk.request("orders:read"),
        "redirect_uri",
        Some("https://desk.example/back?tenant=7"),
    );
    let broken = with(&request, "scope", Some("nonsense"));
    let url = location(&scene.process.authorize(&broken).await);
    assert!(
        url.as_str()
            .starts_with("https://desk.example/back?tenant=7&error="),
        "{url}"
    );
    assert_eq!(parameter(&url, "tenant").as_deref(), Some("7"));
    assert_eq!(url.fragment(), None);
}
