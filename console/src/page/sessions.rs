//! Where one is signed in.

use auth::account::session::{Factor, SessionId, SessionSummary};
use axum::{
    Extension, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kernel::caller::Caller;
use maud::{Markup, html};

use crate::{
    Console,
    component::time,
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{AccountTab, Page, Place, Reader, Width, page},
    session::{Signed, see_other},
};

const PATH: &str = "/console/account/sessions";

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// The sessions, the last used first.
    pub(crate) sessions: &'v [SessionSummary],
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let others = view
        .sessions
        .iter()
        .filter(|session| !session.is_current)
        .count();
    let content = html! {
        div.head {
            div {
                h1 { "Sessions" }
                p { "Where you are signed in. If one of these is not yours, end it and change your password." }
            }
            @if others > 0 {
                form method="post" action="/console/account/sessions/end-others" {
                    (view.form)
                    button.button.button-plain type="submit" { "End all others" }
                }
            }
        }
        ul.rows {
            @for session in view.sessions {
                li {
                    div.row {
                        span.row-main {
                            span.row-title { (browser(session.user_agent.as_deref())) }
                            @if session.is_current { " " span.tag.tag-accent { "this one" } }
                            br;
                            span.small.soft {
                                @if let Some(address) = &session.address { (address) " · " }
                                "signed in " (time(session.created_at)) " by " (factors(&session.factors))
                                br;
                                "last used " (time(session.last_seen_at))
                            }
                        }
                        @if !session.is_current {
                            form method="post" action="/console/account/sessions/end" {
                                (view.form)
                                input type="hidden" name="session" value=(session.id);
                                button.link.link-danger type="submit" { "End" span.hidden-visually { " the session of " (time(session.created_at)) } }
                            }
                        }
                    }
                }
            }
        }
    };
    page(
        Page {
            title: "Sessions",
            reader: Some(view.reader),
            width: Width::Wide,
            passkeys: false,
        },
        content,
    )
}

fn factors(factors: &[Factor]) -> String {
    let words: Vec<&str> = factors
        .iter()
        .map(|factor| match factor {
            Factor::Password => "password",
            Factor::Totp => "authenticator",
            Factor::RecoveryCode => "recovery code",
            Factor::Passkey => "passkey",
            Factor::Upstream => "another provider",
        })
        .collect();
    words.join(" and ")
}

/// What people call the browser and its system; whatever is not known is shown as it names itself.
pub(crate) fn browser(user_agent: Option<&str>) -> String {
    let Some(text) = user_agent.filter(|text| !text.is_empty()) else {
        return "Unknown browser".to_owned();
    };
    let first = |names: &[(&str, &'static str)]| {
        names
            .iter()
            .find(|(mark, _)| text.contains(mark))
            .map(|(_, name)| *name)
    };
    // Most name others beside themselves, so the order matters.
    let browser = first(&[
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ]);
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(name), None) => name.to_owned(),
        (None, _) => text.chars().take(80).collect(),
    }
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route(PATH, get(show))
        .route("/console/account/sessions/end", post(end))
        .route("/console/account/sessions/end-others", post(end_others))
}

async fn show(State(console): State<Console>, signed: Signed) -> Result<Response, Failure> {
    let sessions = console.accounts.sessions(&signed.session).await?;
    Ok(view(&View {
        reader: &signed.reader(Place::Account(AccountTab::Sessions)),
        form: &signed.form,
        sessions: &sessions,
    })
    .into_response())
}

async fn end(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let id: SessionId = form
        .get("session")
        .parse()
        .map_err(|_cause| Failure::Unreadable)?;
    console
        .accounts
        .end_session(&caller, &signed.session, id)
        .await?;
    Ok(see_other(PATH))
}

async fn end_others(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
) -> Result<Response, Failure> {
    console
        .accounts
        .end_other_sessions(&caller, &signed.session)
        .await?;
    Ok(see_other(PATH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_called_what_people_call_it() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
        assert_eq!(browser(Some(chrome)), "Chrome on Linux");
        assert_eq!(browser(Some("curl/8.14")), "curl/8.14");
        assert_eq!(browser(None), "Unknown browser");
    }
}
