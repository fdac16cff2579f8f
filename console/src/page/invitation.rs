//! An invitation, as whoever holds its link sees it: join as somebody new, or with the account that one has.

use auth::{
    Error,
    account::{
        invitation::{InvitationView, Invited},
        person::NewPerson,
        upstream::Purpose,
    },
    client::secret::Secret,
};
use axum::{
    Extension, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kernel::caller::Caller;
use maud::{Markup, html};

use crate::{
    Console,
    component::{
        Faults, Field, Shape, Tone, faults_of, monogram, notice, submit_wide, summary, time,
    },
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{Page, Place, Reader, Width, page, role_words},
    session::{HOME, Signed, begin, current, see_other, with_next},
};

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it, if they have signed in.
    pub(crate) reader: Option<&'v Reader>,
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// The link's token.
    pub(crate) token: &'v str,
    /// To what it invites.
    pub(crate) invitation: &'v InvitationView,
    /// The login that was typed.
    pub(crate) login: &'v str,
    /// The name that was typed.
    pub(crate) name: &'v str,
    /// What the upstream provider is called, if there is one.
    pub(crate) upstream: Option<&'v str>,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let invitation = view.invitation;
    let path = format!("/console/invitations/{}", view.token);
    let place = invitation.merchant_name.as_deref().unwrap_or("Stoa");
    let (title, role) = match invitation.invited {
        Invited::Staff { role, .. } => (
            html! { "Join " (place) },
            html! { "as " (role_words(role).0.to_lowercase()) ": a " (role_words(role).0.to_lowercase()) " " (role_words(role).1) "." },
        ),
        Invited::Operator => (
            html! { "Run this installation" },
            html! { "as operator: an operator sees all merchants and people, and invites others." },
        ),
        Invited::Developer => (
            html! { "Make apps for Stoa" },
            html! { "as developer: a developer makes apps that merchants can install." },
        ),
    };
    let content = html! {
        div.card {
            div.who {
                (monogram(place, false))
                div {
                    h1 { (title) }
                    p.soft {
                        @match &invitation.inviter_name { Some(name) => { (name) " invites you " }, None => "You are invited " }
                        (role)
                    }
                }
            }
            @if let Some(label) = &invitation.label { p.small.soft { "This invitation was made for “" (label) "”. It ends " (time(invitation.expires_at)) "." } }
            @else { p.small.soft { "This invitation ends " (time(invitation.expires_at)) "." } }
            (summary(view.faults))
            @if let Some(reader) = view.reader {
                (notice(Tone::Plain, html! { p { "You are signed in as " strong { (reader.name) } "." } }))
                form method="post" action={ (path) "/join" } {
                    (view.form)
                    (submit_wide("Join with this account"))
                }
                p.small.soft { "To join as somebody else, sign out first and open the link again." }
            } @else {
                form.stack method="post" action=(path) {
                    (view.form)
                    h2 { "Make an account" }
                    (Field { name: "name", label: "Your name", autocomplete: "name", value: view.name, focused: true, ..Field::default() }.render(view.faults))
                    (Field { name: "login", label: "Login", hint: Some("What you will sign in with: an e-mail address or any name."),
                        autocomplete: "username", value: view.login, shape: Shape::Name, ..Field::default() }.render(view.faults))
                    (new_password_field().render(view.faults))
                    (submit_wide("Make the account and join"))
                }
                p.or { "or" }
                div.stack {
                    a.button.button-plain.button-wide href=(with_next("/console/sign-in", &path)) { "I have an account: sign in" }
                    @if let Some(upstream) = view.upstream {
                        a.button.button-plain.button-wide href={ (path) "/upstream" } { "Join with " (upstream) }
                    }
                }
            }
        }
    };
    page(
        Page {
            title: if view.faults.is_empty() {
                "Invitation"
            } else {
                "Error: Invitation"
            },
            reader: view.reader,
            width: Width::Narrow,
            passkeys: false,
        },
        content,
    )
}

/// The field for a new password.
pub(crate) fn new_password_field() -> Field<'static> {
    Field {
        name: "password",
        label: "Password",
        kind: "password",
        hint: Some("At least 10 characters. Three or four words that nobody would guess do well."),
        autocomplete: "new-password",
        ..Field::default()
    }
}

/// The address that is handed over.
pub(crate) fn link(console: &Console, token: &str) -> String {
    format!("{}/console/invitations/{token}", console.issuer())
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route(
            "/console/invitations/{token}",
            get(show).post(accept_as_new),
        )
        .route("/console/invitations/{token}/join", post(join))
        .route("/console/invitations/{token}/upstream", get(begin_upstream))
}

async fn show(
    State(console): State<Console>,
    Path(token): Path<String>,
    headers: HeaderMap,
    form: FormToken,
) -> Result<Response, Failure> {
    let invitation = console.accounts.invitation(&token).await?;
    let session = current(&console, &headers).await?;
    let reader = session.map(|session| Reader::new(&session, Place::Aside, form.clone()));
    Ok(view(&View {
        reader: reader.as_ref(),
        form: &form,
        token: &token,
        invitation: &invitation,
        login: "",
        name: "",
        upstream: console.accounts.upstream_name(),
        faults: &Faults::NONE,
    })
    .into_response())
}

async fn accept_as_new(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    Path(token): Path<String>,
    form_token: FormToken,
    form: Form,
) -> Result<Response, Failure> {
    let new = NewPerson {
        login: form.get("login").to_owned(),
        name: form.get("name").trim().to_owned(),
        password: Secret::new(form.get("password").to_owned()),
    };
    match console.accounts.accept_as_new(&caller, &token, new).await {
        Ok(session) => Ok(begin(&console, &session, HOME)),
        Err(error @ (Error::InvalidFields(_) | Error::Throttled { .. })) => {
            let invitation = console.accounts.invitation(&token).await?;
            let page = view(&View {
                reader: None,
                form: &form_token,
                token: &token,
                invitation: &invitation,
                login: form.get("login"),
                name: form.get("name"),
                upstream: console.accounts.upstream_name(),
                faults: &faults_of(&error).unwrap_or_default(),
            });
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

async fn join(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(token): Path<String>,
) -> Result<Response, Failure> {
    console
        .accounts
        .accept_as(&caller, &token, &signed.session)
        .await?;
    Ok(see_other(HOME))
}

async fn begin_upstream(
    State(console): State<Console>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    super::upstream::require_own_link(&headers)?;
    super::upstream::set_out(&console, Purpose::Accept(&token), HOME).await
}
