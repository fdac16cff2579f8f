//! Setting up an authenticator, and the recovery codes that come with it.

use std::fmt::Write;

use auth::account::{CeremonyToken, recovery_code::RecoveryCode};
use axum::{
    Extension, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kernel::caller::Caller;
use maud::{Markup, html};
use qrcodegen::{QrCode, QrCodeEcc};

use super::{
    second_factor::code_field,
    security::{PATH, PLACE, after},
};
use crate::{
    Console,
    component::{Faults, Tone, back, fold, notice, submit, summary},
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{Page, Reader, Width, page},
    session::{Signed, require_recent_proof},
};

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its form carries.
    pub(crate) form: &'v FormToken,
    /// The ceremony that has begun.
    pub(crate) ceremony: &'v str,
    /// The secret in base32, for typing.
    pub(crate) secret: &'v str,
    /// The same as a URL, for the picture.
    pub(crate) url: &'v str,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let content = html! {
        (back(PATH, "Security"))
        div.card {
            h1 { "Set up an authenticator" }
            (summary(view.faults))
            p { "1. Open an authenticator app on your phone and scan this picture." }
            @if let Some(picture) = qr(view.url) { div.qr { (picture) } }
            (fold("I can't scan it", html! {
                p.soft { "Type this into the app instead, as a key for time-based codes:" }
                code.once { (in_fours(view.secret)) }
            }))
            form.stack method="post" action="/console/account/totp" {
                (view.form)
                input type="hidden" name="ceremony" value=(view.ceremony);
                input type="hidden" name="secret" value=(view.secret);
                input type="hidden" name="url" value=(view.url);
                p { "2. Type the code that it shows." }
                (code_field(false).render(view.faults))
                div.actions { (submit("Turn it on")) a.button.button-plain href=(PATH) { "Cancel" } }
            }
        }
    };
    page(
        Page {
            title: "Set up an authenticator",
            reader: Some(view.reader),
            width: Width::Narrow,
            passkeys: false,
        },
        content,
    )
}

/// The URL as a picture; `None` if it is too long for one.
fn qr(text: &str) -> Option<Markup> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let size = code.size();
    let mut path = String::new();
    for y in 0..size {
        for x in 0..size {
            if code.get_module(x, y) {
                // Writing to a text does not fail.
                let _ = write!(path, "M{x} {y}h1v1h-1z");
            }
        }
    }
    Some(html! {
        svg viewBox={ "0 0 " (size) " " (size) } role="img" aria-label="QR code for the authenticator app" shape-rendering="crispEdges" {
            path d=(path) fill="#000000" {}
        }
    })
}

fn in_fours(secret: &str) -> String {
    let letters: Vec<char> = secret.chars().collect();
    let fours: Vec<String> = letters
        .chunks(4)
        .map(|four| four.iter().collect())
        .collect();
    fours.join(" ")
}

/// The recovery codes, shown this once.
pub(crate) fn codes_view(reader: &Reader, codes: &[&str], is_new: bool) -> Markup {
    let content = html! {
        div.card {
            h1 { "Keep these recovery codes" }
            @if is_new { (notice(Tone::Plain, html! { p { "The authenticator is on." } })) }
            p { "If you lose your phone, one of these lets you in instead of its code. Each is good once. They are shown this once, and take the place of any older ones." }
            ul.codes { @for code in codes { li { (code) } } }
            p { "Print this page or write them down, and keep them where you keep important papers." }
            p.no-print { a.button.button-primary href=(PATH) { "I have kept them" } }
        }
    };
    page(
        Page {
            title: "Recovery codes",
            reader: Some(reader),
            width: Width::Middle,
            passkeys: false,
        },
        content,
    )
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/account/totp", get(show).post(confirm))
        .route("/console/account/totp/off", post(turn_off))
        .route("/console/account/recovery-codes", post(make_codes))
}

async fn show(State(console): State<Console>, signed: Signed) -> Result<Response, Failure> {
    require_recent_proof(&console, &signed)?;
    let setup = console.accounts.begin_totp(&signed.session).await?;
    Ok(view(&View {
        reader: &signed.reader(PLACE),
        form: &signed.form,
        ceremony: setup.ceremony.expose(),
        secret: setup.secret_base32.expose(),
        url: setup.otpauth_url.expose(),
        faults: &Faults::NONE,
    })
    .into_response())
}

async fn confirm(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let ceremony = CeremonyToken::new(form.get("ceremony").to_owned());
    let reader = signed.reader(PLACE);
    let confirmed = console
        .accounts
        .confirm_totp(&caller, &signed.session, &ceremony, form.get("code").trim())
        .await;
    let error = match confirmed {
        Ok(codes) => return Ok(codes_page(&reader, &codes, true)),
        Err(error) => error,
    };
    let faults = match &error {
        auth::Error::NotAccepted => Faults::at(
            "code",
            "That code is not right. Type the one that the app shows now.",
        ),
        _ => return Err(error.into()),
    };
    let page = view(&View {
        reader: &reader,
        form: &signed.form,
        ceremony: form.get("ceremony"),
        // What the page itself was given; the server's own lies sealed in the ceremony.
        secret: form.get("secret"),
        url: form.get("url"),
        faults: &faults,
    });
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

fn codes_page(reader: &Reader, codes: &[RecoveryCode], is_new: bool) -> Response {
    let codes: Vec<&str> = codes.iter().map(RecoveryCode::expose).collect();
    codes_view(reader, &codes, is_new).into_response()
}

async fn turn_off(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
) -> Result<Response, Failure> {
    let done = console
        .accounts
        .disable_totp(&caller, &signed.session)
        .await;
    after(&console, &signed, done).await
}

async fn make_codes(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
) -> Result<Response, Failure> {
    let codes = console
        .accounts
        .make_recovery_codes(&caller, &signed.session)
        .await?;
    Ok(codes_page(&signed.reader(PLACE), &codes, false))
}
