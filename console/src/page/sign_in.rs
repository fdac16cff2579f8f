//! Signing in: by login and password, by passkey, or by way of the upstream provider.

use auth::{Error, account::CeremonyToken, account::sign_in::SignIn, client::secret::Secret};
use axum::{
    Extension, Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kernel::caller::Caller;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Console,
    ceremony::{self, Kind},
    component::{Faults, Field, submit_wide, summary, throttled_words},
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{Page, Width, page},
    session::{begin, current, safe_next, see_other, with_next},
};

/// What is said of whatever was wrong: which part it was is not told.
pub(crate) const NOT_ACCEPTED: &str = "That login and password do not go together.";

/// What the page shows.
pub(crate) struct View<'v> {
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// Where to go afterwards.
    pub(crate) next: &'v str,
    /// The login that was typed.
    pub(crate) login: &'v str,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
    /// Whether there are passkeys here.
    pub(crate) passkeys: bool,
    /// What the upstream provider is called, if there is one.
    pub(crate) upstream: Option<&'v str>,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let autocomplete = if view.passkeys {
        "username webauthn"
    } else {
        "username"
    };
    let for_app = view.next.starts_with("/console/consent/");
    let content = html! {
        div.card {
            h1 { "Sign in" }
            @if for_app { p.soft { "An app asks for access to a shop. Sign in to see what it asks for." } }
            (summary(view.faults))
            form.stack method="post" action="/console/sign-in" {
                (view.form)
                input type="hidden" name="next" value=(view.next);
                (Field { name: "login", label: "Login", autocomplete, value: view.login, focused: view.login.is_empty(),
                    shape: crate::component::Shape::Name, ..Field::default() }.render(view.faults))
                (Field { name: "password", label: "Password", kind: "password", autocomplete: "current-password",
                    focused: !view.login.is_empty(), ..Field::default() }.render(view.faults))
                (submit_wide("Sign in"))
            }
            @if view.passkeys || view.upstream.is_some() {
                div.stack {
                    @if view.passkeys {
                        form.stack method="post" action="/console/sign-in/passkey" data-passkey="get" data-begin="/console/sign-in/passkey/begin"
                            data-conditional="login" hidden {
                            (view.form)
                            input type="hidden" name="next" value=(view.next);
                            (passkey_fields())
                            p.or { "or" }
                            button.button.button-plain.button-wide type="submit" { "Sign in with a passkey" }
                            p.fault role="alert" data-passkey-fault hidden { "The passkey was not used. Try again, or sign in with your password." }
                        }
                    }
                    @if let Some(upstream) = view.upstream {
                        @if !view.passkeys { p.or { "or" } }
                        a.button.button-plain.button-wide href=(with_next("/console/sign-in/upstream", view.next)) { "Sign in with " (upstream) }
                    }
                }
            }
        }
    };
    page(
        Page {
            title: if view.faults.is_empty() {
                "Sign in"
            } else {
                "Error: Sign in"
            },
            reader: None,
            width: Width::Narrow,
            passkeys: view.passkeys,
        },
        content,
    )
}

/// What the script fills in before it sends a form about a passkey.
pub(crate) fn passkey_fields() -> Markup {
    html! {
        input type="hidden" name="ceremony" value="";
        input type="hidden" name="credential" value="";
    }
}

/// Where to go afterwards, as the address says.
#[derive(Debug, Deserialize)]
pub(crate) struct Next {
    #[serde(default)]
    next: String,
}

impl Next {
    pub(crate) fn safe(&self) -> String {
        safe_next(&self.next)
    }
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/sign-in", get(show).post(submit))
        .route("/console/sign-in/passkey/begin", post(begin_passkey))
        .route("/console/sign-in/passkey", post(finish_passkey))
        .route("/console/sign-in/upstream", get(begin_upstream))
}

async fn show(
    State(console): State<Console>,
    Query(next): Query<Next>,
    headers: HeaderMap,
    form: FormToken,
) -> Result<Response, Failure> {
    if current(&console, &headers).await?.is_some() {
        return Ok(see_other(&next.safe()));
    }
    Ok(again(&console, &form, &next.safe(), "", &Faults::NONE).into_response())
}

fn again(console: &Console, form: &FormToken, next: &str, login: &str, faults: &Faults) -> Markup {
    view(&View {
        form,
        next,
        login,
        faults,
        passkeys: console.accounts.passkeys_available(),
        upstream: console.accounts.upstream_name(),
    })
}

async fn submit(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    token: FormToken,
    form: Form,
) -> Result<Response, Failure> {
    let (login, next) = (form.get("login"), safe_next(form.get("next")));
    let password = Secret::new(form.get("password").to_owned());
    match console.accounts.sign_in(&caller, login, &password).await {
        Ok(SignIn::Session(session)) => Ok(begin(&console, &session, &next)),
        Ok(SignIn::SecondFactor(ceremony)) => {
            let mut response = see_other("/console/sign-in/second-factor");
            ceremony::keep(
                &console,
                &mut response,
                Kind::SecondFactor,
                &ceremony,
                &next,
            );
            Ok(response)
        }
        Err(error) => refused(error, NOT_ACCEPTED, |faults| {
            again(&console, &token, &next, login, faults)
        }),
    }
}

/// The same page again for a proof that was refused; whatever else went wrong has a page of its own.
pub(crate) fn refused(
    error: Error,
    sentence: &'static str,
    again: impl FnOnce(&Faults) -> Markup,
) -> Result<Response, Failure> {
    let (status, faults) = match &error {
        Error::NotAccepted => (StatusCode::UNPROCESSABLE_ENTITY, Faults::general(sentence)),
        Error::Throttled { retry_after } => (
            StatusCode::TOO_MANY_REQUESTS,
            Faults::general(throttled_words(*retry_after)),
        ),
        _ => return Err(error.into()),
    };
    let mut response = (status, again(&faults)).into_response();
    crate::failure::say_when(&mut response, &error);
    Ok(response)
}

async fn begin_passkey(State(console): State<Console>, _: Form) -> Result<Json<Value>, Failure> {
    let challenge = console.accounts.begin_passkey_sign_in().await?;
    Ok(challenge_json(&challenge))
}

/// What the script is given.
pub(crate) fn challenge_json(challenge: &auth::account::passkey::PasskeyChallenge) -> Json<Value> {
    Json(json!({"ceremony": challenge.ceremony.expose(), "options": challenge.options}))
}

/// What the script gives back.
pub(crate) fn passkey_answer(form: &Form) -> Result<(CeremonyToken, Value), Failure> {
    let credential =
        serde_json::from_str(form.get("credential")).map_err(|_cause| Failure::Unreadable)?;
    Ok((
        CeremonyToken::new(form.get("ceremony").to_owned()),
        credential,
    ))
}

async fn finish_passkey(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    token: FormToken,
    form: Form,
) -> Result<Response, Failure> {
    let next = safe_next(form.get("next"));
    let (ceremony, credential) = passkey_answer(&form)?;
    match console
        .accounts
        .finish_passkey_sign_in(&caller, &ceremony, credential)
        .await
    {
        Ok(session) => Ok(begin(&console, &session, &next)),
        Err(Error::Gone(_)) => {
            let faults = Faults::general("That took too long. Please try again.");
            Ok(again(&console, &token, &next, "", &faults).into_response())
        }
        Err(error) => refused(error, "This passkey is not known here.", |faults| {
            again(&console, &token, &next, "", faults)
        }),
    }
}

async fn begin_upstream(
    State(console): State<Console>,
    Query(next): Query<Next>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    super::upstream::require_own_link(&headers)?;
    super::upstream::set_out(
        &console,
        auth::account::upstream::Purpose::SignIn,
        &next.safe(),
    )
    .await
}
