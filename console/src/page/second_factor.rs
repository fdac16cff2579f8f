//! The second factor, after a password that was right: a code of the authenticator, or a recovery code.

use auth::Error;
use axum::{
    Extension, Router,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::get,
};
use kernel::caller::Caller;
use maud::{Markup, html};

use super::sign_in::refused;
use crate::{
    Console,
    ceremony::{self, Kind},
    component::{Faults, Field, Shape, fold, submit_wide, summary},
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{Page, Width, page},
    session::{begin, see_other},
};

/// What is said of a code that was wrong.
pub(crate) const NOT_ACCEPTED: &str =
    "That code is not right. Codes change every 30 seconds, and each is good once.";

/// What the page shows.
pub(crate) struct View<'v> {
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let content = html! {
        div.card {
            h1 { "Enter your code" }
            p.soft { "Open the authenticator app on your phone and type the six digits that it shows for Stoa." }
            (summary(view.faults))
            form.stack method="post" action="/console/sign-in/second-factor" {
                (view.form)
                (code_field(true).render(view.faults))
                (submit_wide("Continue"))
            }
            (fold("I can't use my authenticator", html! {
                p.soft { "Type one of the recovery codes that you kept when you set it up. Each is good once." }
                form.stack method="post" action="/console/sign-in/second-factor" {
                    (view.form)
                    (Field { name: "recovery_code", label: "Recovery code", length_max: 40, shape: Shape::Code, ..Field::default() }.render(&Faults::NONE))
                    button.button.button-plain type="submit" { "Use the recovery code" }
                }
                p.soft.small { "Without recovery codes, ask whoever runs this installation." }
            }))
            p { a href="/console/sign-in" { "Sign in as somebody else" } }
        }
    };
    page(
        Page {
            title: if view.faults.is_empty() {
                "Enter your code"
            } else {
                "Error: Enter your code"
            },
            reader: None,
            width: Width::Narrow,
            passkeys: false,
        },
        content,
    )
}

/// The field for a time-based code.
pub(crate) fn code_field(focused: bool) -> Field<'static> {
    Field {
        name: "code",
        label: "Six-digit code",
        autocomplete: "one-time-code",
        length_max: 12,
        shape: Shape::Digits,
        focused,
        ..Field::default()
    }
}

/// The code of whichever form was sent.
pub(crate) fn code_of(form: &Form) -> &str {
    if form.has("recovery_code") {
        form.get("recovery_code").trim()
    } else {
        form.get("code").trim()
    }
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route("/console/sign-in/second-factor", get(show).post(submit))
}

async fn show(State(console): State<Console>, headers: HeaderMap, form: FormToken) -> Response {
    if ceremony::read(&console, &headers, Kind::SecondFactor).is_none() {
        return see_other("/console/sign-in");
    }
    view(&View {
        form: &form,
        faults: &Faults::NONE,
    })
    .into_response()
}

async fn submit(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    token: FormToken,
    form: Form,
) -> Result<Response, Failure> {
    let Some(begun) = ceremony::read(&console, &headers, Kind::SecondFactor) else {
        return Ok(see_other("/console/sign-in"));
    };
    match console
        .accounts
        .second_factor(&caller, &begun.token, code_of(&form))
        .await
    {
        Ok(session) => Ok(begin(&console, &session, &begun.next)),
        Err(Error::Gone(_)) => Ok(see_other("/console/sign-in")),
        Err(error) => refused(error, NOT_ACCEPTED, |faults| {
            view(&View {
                form: &token,
                faults,
            })
        }),
    }
}
