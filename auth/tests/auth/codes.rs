//! Codes become tokens once (RFC 6749, section 4.1.3; RFC 9700, sections 2.1.1 and 4.5).

use std::time::Duration;

use auth::client::app::{AppInput, ClientKind};
use axum::http::StatusCode;
use futures_util::future::join_all;

use crate::{
    fixture::{ISSUER, Installation, Process, basic, terms},
    flow::{CALLBACK, CHALLENGE, Desk, VERIFIER, assert_error, tokens_of},
};

async fn setting(kind: ClientKind) -> (Installation, Process, Desk) {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation.desk(kind).await;
    (installation, process, desk)
}

#[tokio::test]
async fn a_code_becomes_tokens_for_the_merchant_who_consented() {
    for kind in [ClientKind::Confidential, ClientKind::Public] {
        let (installation, process, desk) = setting(kind).await;
        let code = installation.code(&process, &desk, "orders:read").await;
        assert!(code.starts_with("stoa_code_"), "{code}");
        let answer = process.redeem(&desk, &code).await;
        let tokens = tokens_of(&answer);
        assert_eq!(answer.json["token_type"], "Bearer");
        assert_eq!(answer.json["expires_in"], 600);
        assert_eq!(answer.json["scope"], "orders:read");
        assert_eq!(answer.json["merchant_id"], desk.merchant.to_string());
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert!(tokens.refresh.starts_with("stoa_refresh_"));
        let actor = process.verify(&tokens.access).await.unwrap();
        assert_eq!(
            (actor.merchant, actor.app),
            (desk.merchant, desk.app.app.id)
        );
        let claims = crate::tokens::claims_of(&tokens.access);
        assert_eq!(
            claims["sub"],
            desk.merchant.to_string(),
            "the resource owner"
        );
        assert_eq!(claims["client_id"], desk.id());
    }
}

#[tokio::test]
async fn a_code_is_good_for_its_client_its_redirect_uri_and_its_verifier() {
    let (installation, process, desk) = setting(ClientKind::Confidential).await;
    let code = installation.code(&process, &desk, "orders:read").await;
    // Injected into another client's session: refused, and not burnt by whoever has seen it.
    let thief = installation.desk(ClientKind::Confidential).await;
    for _ in 0..5 {
        assert_error(
            &process.redeem(&thief, &code).await,
            "invalid_grant",
            "another client's",
        );
    }
    let elsewhere = "https://desk.example/callback2";
    let answer = process
        .redeem_with(&desk, &code, elsewhere, VERIFIER, "")
        .await;
    assert_error(&answer, "invalid_grant", "another redirect URI");
    let answer = process
        .redeem_with(&desk, &code, CALLBACK, CHALLENGE, "")
        .await;
    assert_error(&answer, "invalid_grant", "the challenge for the verifier");
    let other = installation.merchant().await;
    let resource = format!("&resource={ISSUER}/merchants/{other}");
    let answer = process
        .redeem_with(&desk, &code, CALLBACK, VERIFIER, &resource)
        .await;
    assert_error(&answer, "invalid_target", "another merchant");
    let resource = format!("&resource={ISSUER}/merchants/{}", desk.merchant);
    let answer = process
        .redeem_with(&desk, &code, CALLBACK, VERIFIER, &resource)
        .await;
    tokens_of(&answer);
}

#[tokio::test]
async fn three_wrong_verifiers_burn_a_code() {
    let (installation, process, desk) = setting(ClientKind::Public).await;
    let wrong = VERIFIER.to_uppercase();
    for (tries, is_good) in [(2, true), (3, false)] {
        let code = installation.code(&process, &desk, "orders:read").await;
        for _ in 0..tries {
            let answer = process
                .redeem_with(&desk, &code, CALLBACK, &wrong, "")
                .await;
            assert_error(&answer, "invalid_grant", "a wrong verifier");
        }
        let answer = process.redeem(&desk, &code).await;
        assert_eq!(answer.status == StatusCode::OK, is_good, "after {tries}");
    }
}

#[tokio::test]
async fn a_code_lasts_a_minute() {
    let (installation, process, desk) = setting(ClientKind::Confidential).await;
    for (seconds, is_good) in [(59, true), (60, false)] {
        let code = installation.code(&process, &desk, "orders:read").await;
        installation.clock.advance(Duration::from_secs(seconds));
        let answer = process.redeem(&desk, &code).await;
        assert_eq!(
            answer.status == StatusCode::OK,
            is_good,
            "after {seconds} s"
        );
    }
}

#[tokio::test]
async fn a_code_that_comes_again_ends_what_came_of_it() {
    let (installation, process, desk) = setting(ClientKind::Public).await;
    let other = installation.process().await;
    let bystander = installation.tokens(&process, &desk, "orders:read").await;
    let code = installation.code(&process, &desk, "orders:read").await;
    let tokens = tokens_of(&process.redeem(&desk, &code).await);
    let next = tokens_of(&process.refresh(&desk, &tokens.refresh).await);
    assert!(other.takes(&next.access).await);
    installation.clock.advance(Duration::from_hours(1));
    let fresh = tokens_of(&process.refresh(&desk, &next.refresh).await);
    assert!(other.takes(&fresh.access).await);
    for _ in 0..3 {
        assert_error(&other.redeem(&desk, &code).await, "invalid_grant", "again");
    }
    for process in [&process, &other] {
        assert!(!process.takes(&fresh.access).await);
        assert_error(
            &process.refresh(&desk, &fresh.refresh).await,
            "invalid_grant",
            "its family has ended",
        );
    }
    assert_eq!(
        installation
            .audited(desk.merchant, "authorization_code.reused")
            .await,
        1,
        "told once, and the epoch raised once"
    );
    let tokens = tokens_of(&process.refresh(&desk, &bystander.refresh).await);
    assert!(
        other.takes(&tokens.access).await,
        "another code's family lives on"
    );
}

#[tokio::test]
async fn of_fifty_redemptions_at_once_one_gets_tokens_that_stay_good() {
    let (installation, process, desk) = setting(ClientKind::Confidential).await;
    let processes = [process, installation.process().await];
    let code = installation.code(&processes[0], &desk, "orders:read").await;
    let answers =
        join_all((0..50).map(|turn| processes[turn % processes.len()].redeem(&desk, &code))).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|answer| answer.status == StatusCode::OK);
    assert_eq!(won.len(), 1);
    for answer in lost {
        assert_error(answer, "invalid_grant", "a twin");
    }
    let tokens = tokens_of(won[0]);
    for process in &processes {
        assert!(process.takes(&tokens.access).await);
    }
    tokens_of(&processes[1].refresh(&desk, &tokens.refresh).await);
    assert_eq!(
        installation
            .count("select count(*) from refresh_families")
            .await,
        1
    );
    assert_eq!(
        installation
            .audited(desk.merchant, "authorization_code.reused")
            .await,
        0
    );
}

#[tokio::test]
async fn a_redemption_says_each_parameter_once() {
    let (installation, process, desk) = setting(ClientKind::Confidential).await;
    let code = installation.code(&process, &desk, "orders:read").await;
    let parameters = [
        format!("code={code}"),
        format!("redirect_uri={CALLBACK}"),
        format!("code_verifier={VERIFIER}"),
        "grant_type=authorization_code".to_owned(),
    ];
    for place in 0..parameters.len() {
        let mut without = parameters.to_vec();
        let left_out = without.remove(place);
        for form in [
            without.join("&"),
            format!("{}&{left_out}", parameters.join("&")),
            format!(
                "{}&{}=",
                without.join("&"),
                left_out.split('=').next().unwrap()
            ),
        ] {
            let answer = process.post(&[basic(&desk.app)], &form).await;
            assert_error(&answer, "invalid_request", &form);
        }
    }
    let answer = process
        .post(&[basic(&desk.app)], &parameters.join("&"))
        .await;
    tokens_of(&answer);
}

#[tokio::test]
async fn a_code_gives_what_the_grant_still_has() {
    let (installation, process, desk) = setting(ClientKind::Confidential).await;
    let app = desk.app.app.id;
    let code = installation
        .code(&process, &desk, "orders:write catalog:read")
        .await;
    installation
        .consent(desk.merchant, app, terms("orders:read"))
        .await
        .unwrap();
    let answer = process.redeem(&desk, &code).await;
    assert_eq!(answer.json["scope"], "orders:read", "{}", answer.json);
    let code = installation.code(&process, &desk, "orders:read").await;
    let grant = installation
        .authorizations()
        .living_grant(desk.merchant, app)
        .await
        .unwrap()
        .unwrap();
    installation.revoke(desk.merchant, grant.id).await;
    assert_error(
        &process.redeem(&desk, &code).await,
        "invalid_grant",
        "revoked",
    );
}

#[tokio::test]
async fn other_tokens_are_no_codes() {
    let (installation, process, desk) = setting(ClientKind::Confidential).await;
    let tokens = installation.tokens(&process, &desk, "orders:read").await;
    for token in [
        &tokens.access,
        &tokens.refresh,
        "stoa_code_",
        "stoa_code_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert_error(&process.redeem(&desk, token).await, "invalid_grant", token);
    }
    tokens_of(&process.refresh(&desk, &tokens.refresh).await);
}

#[tokio::test]
async fn a_confidential_client_must_prove_itself_and_a_public_one_can_not() {
    let (installation, process, desk) = setting(ClientKind::Confidential).await;
    let code = installation.code(&process, &desk, "orders:read").await;
    let form = format!(
        "grant_type=authorization_code&code={code}&redirect_uri={CALLBACK}&code_verifier={VERIFIER}"
    );
    let unproved = format!("{form}&client_id={}", desk.id());
    assert_error(
        &process.post(&[], &unproved).await,
        "invalid_client",
        "no secret",
    );
    let wrong = format!("{unproved}&client_secret=stoa_secret_wrong");
    assert_error(
        &process.post(&[], &wrong).await,
        "invalid_client",
        "a wrong secret",
    );
    let public = installation
        .desk_of(AppInput {
            kind: ClientKind::Public,
            redirect_uris: vec![CALLBACK.to_owned()],
            ..AppInput::named("Desk at home")
        })
        .await;
    let code = installation.code(&process, &public, "orders:read").await;
    let answer = process
        .redeem_with(
            &public,
            &code,
            CALLBACK,
            VERIFIER,
            "&client_secret=stoa_secret_any",
        )
        .await;
    assert_error(
        &answer,
        "invalid_client",
        "a secret of a client that has none",
    );
    tokens_of(&process.redeem(&public, &code).await);
}

#[tokio::test]
async fn whoever_guesses_at_codes_has_to_wait() {
    let (installation, process, desk) = setting(ClientKind::Public).await;
    let code = installation.code(&process, &desk, "orders:read").await;
    let mut guesses = 0;
    while process
        .redeem(&desk, &format!("stoa_code_{guesses}"))
        .await
        .status
        == StatusCode::BAD_REQUEST
    {
        guesses += 1;
        assert!(guesses <= 60, "within a minute");
    }
    let answer = process.redeem(&desk, &code).await;
    assert_eq!(
        answer.status,
        StatusCode::TOO_MANY_REQUESTS,
        "{}",
        answer.json
    );
    assert!(answer.headers.contains_key("retry-after"));
    installation.clock.advance(Duration::from_secs(10));
    tokens_of(&process.redeem(&desk, &code).await);
}
