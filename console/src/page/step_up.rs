//! Proving once more who one is, before what must not be done by whoever finds an open browser.

use auth::{account::upstream::Purpose, client::secret::Secret};
use axum::{
    Extension, Json, Router,
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kernel::caller::Caller;
use maud::{Markup, html};
use serde_json::Value;

use super::{
    second_factor::{code_field, code_of},
    sign_in::{Next, challenge_json, passkey_answer, passkey_fields, refused},
};
use crate::{
    Console,
    component::{Faults, Field, Shape, fold, submit_wide, summary},
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{Page, Place, Reader, Width, page},
    session::{Signed, begin, safe_next, with_next},
};

/// What is said of a proof that was wrong: which part it was is not told.
const NOT_ACCEPTED: &str = "That was not right. Please try again.";

/// What the page shows.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a way of its own to prove who one is"
)]
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// What they sign in with, for the browser to find the password by.
    pub(crate) login: &'v str,
    /// Where to go afterwards.
    pub(crate) next: &'v str,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
    /// Whether the person has a password.
    pub(crate) password: bool,
    /// Whether a code is asked for too.
    pub(crate) totp: bool,
    /// Whether the person has a passkey.
    pub(crate) passkey: bool,
    /// What the upstream provider is called, if the person has an account there.
    pub(crate) upstream: Option<&'v str>,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let content = html! {
        div.card {
            h1 { "Confirm it is you" }
            p.soft { "What comes next can change what others may do with a shop or an account, so we ask once more. It counts for ten minutes." }
            (summary(view.faults))
            @if view.passkey {
                form.stack method="post" action="/console/step-up/passkey" data-passkey="get" data-begin="/console/step-up/passkey/begin" hidden {
                    (view.form)
                    input type="hidden" name="next" value=(view.next);
                    (passkey_fields())
                    button.button.button-primary.button-wide type="submit" { "Confirm with a passkey" }
                    p.fault role="alert" data-passkey-fault hidden { "The passkey was not used. Please try again." }
                    @if view.password { p.or { "or" } }
                }
            }
            @if view.password {
                form.stack method="post" action="/console/step-up" {
                    (view.form)
                    input type="hidden" name="next" value=(view.next);
                    input.hidden-visually type="text" name="login" value=(view.login) autocomplete="username" aria-hidden="true" tabindex="-1" readonly;
                    (Field { name: "password", label: "Password", kind: "password", autocomplete: "current-password", focused: true, ..Field::default() }.render(view.faults))
                    @if view.totp { (code_field(false).render(view.faults)) }
                    (submit_wide("Confirm"))
                }
                @if view.totp {
                    (fold("I can't use my authenticator", html! {
                        form.stack method="post" action="/console/step-up" {
                            (view.form)
                            input type="hidden" name="next" value=(view.next);
                            div.field {
                                label for="password-again" { "Password" }
                                input #password-again name="password" type="password" autocomplete="current-password" maxlength="200" required;
                            }
                            (Field { name: "recovery_code", label: "Recovery code", length_max: 40, shape: Shape::Code, ..Field::default() }.render(&Faults::NONE))
                            button.button.button-plain type="submit" { "Confirm" }
                        }
                    }))
                }
            }
            @if let Some(upstream) = view.upstream {
                @if view.password || view.passkey { p.or { "or" } }
                a.button.button-plain.button-wide href=(with_next("/console/step-up/upstream", view.next)) { "Confirm with " (upstream) }
            }
            @if !view.password && view.upstream.is_none() && !view.passkey {
                p { "There is no way to confirm it: this account has no password, passkey or other sign-in. Ask whoever runs this installation." }
            }
        }
    };
    page(
        Page {
            title: if view.faults.is_empty() {
                "Confirm it is you"
            } else {
                "Error: Confirm it is you"
            },
            reader: Some(view.reader),
            width: Width::Narrow,
            passkeys: view.passkey,
        },
        content,
    )
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/step-up", get(show).post(submit))
        .route("/console/step-up/passkey/begin", post(begin_passkey))
        .route("/console/step-up/passkey", post(finish_passkey))
        .route("/console/step-up/upstream", get(begin_upstream))
}

async fn show(
    State(console): State<Console>,
    signed: Signed,
    Query(next): Query<Next>,
) -> Result<Response, Failure> {
    let ways = Ways::of(&console, &signed).await?;
    Ok(ways
        .page(&console, &signed, &next.safe(), &Faults::NONE)
        .into_response())
}

/// How the person can prove it.
struct Ways {
    passkey: bool,
    upstream: bool,
}

impl Ways {
    async fn of(console: &Console, signed: &Signed) -> Result<Self, Failure> {
        let passkey = console.accounts.passkeys_available()
            && !console.accounts.passkeys(&signed.session).await?.is_empty();
        let upstream = console.accounts.upstream_name().is_some()
            && console.accounts.has_upstream(&signed.session).await?;
        Ok(Self { passkey, upstream })
    }

    fn page(&self, console: &Console, signed: &Signed, next: &str, faults: &Faults) -> Markup {
        let person = &signed.session.person;
        view(&View {
            reader: &signed.reader(Place::Aside),
            form: &signed.form,
            login: &person.login,
            next,
            faults,
            password: person.has_password,
            totp: person.has_totp,
            passkey: self.passkey,
            upstream: console.accounts.upstream_name().filter(|_| self.upstream),
        })
    }
}

async fn submit(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let next = safe_next(form.get("next"));
    let password = Secret::new(form.get("password").to_owned());
    let code = Some(code_of(&form)).filter(|code| !code.is_empty());
    match console
        .accounts
        .step_up(&caller, &signed.session, &password, code)
        .await
    {
        Ok(session) => Ok(begin(&console, &session, &next)),
        Err(error) => {
            let ways = Ways::of(&console, &signed).await?;
            refused(error, NOT_ACCEPTED, |faults| {
                ways.page(&console, &signed, &next, faults)
            })
        }
    }
}

async fn begin_passkey(
    State(console): State<Console>,
    signed: Signed,
    _: Form,
) -> Result<Json<Value>, Failure> {
    let challenge = console
        .accounts
        .begin_passkey_step_up(&signed.session)
        .await?;
    Ok(challenge_json(&challenge))
}

async fn finish_passkey(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let next = safe_next(form.get("next"));
    let (ceremony, credential) = passkey_answer(&form)?;
    match console
        .accounts
        .finish_passkey_step_up(&caller, &signed.session, &ceremony, credential)
        .await
    {
        Ok(session) => Ok(begin(&console, &session, &next)),
        Err(error) => {
            let ways = Ways::of(&console, &signed).await?;
            refused(error, NOT_ACCEPTED, |faults| {
                ways.page(&console, &signed, &next, faults)
            })
        }
    }
}

async fn begin_upstream(
    State(console): State<Console>,
    signed: Signed,
    Query(next): Query<Next>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    super::upstream::require_own_link(&headers)?;
    super::upstream::set_out(&console, Purpose::StepUp(&signed.session), &next.safe()).await
}
