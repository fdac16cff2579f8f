//! How one signs in: the password, the authenticator and its recovery codes, passkeys, the upstream provider.

use auth::{
    Error,
    account::{Person, passkey::PasskeySummary, upstream::Purpose},
    client::secret::Secret,
};
use axum::{
    Extension, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kernel::{caller::Caller, clock::Timestamp};
use maud::{Markup, html};
use serde_json::Value;

use super::{
    invitation::new_password_field,
    sign_in::{challenge_json, passkey_answer, passkey_fields},
};
use crate::{
    Console,
    component::{
        Faults, Field, Tone, back, day, days_ago, faults_of, fold_danger, notice, submit, summary,
    },
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{AccountTab, Page, Place, Reader, Width, page},
    session::{Signed, require_recent_proof, see_other},
};

/// Where this page is.
pub(crate) const PATH: &str = "/console/account/security";

/// Recovery codes that are few enough to say so.
const CODES_FEW: i64 = 3;

/// The person's place in the console.
pub(crate) const PLACE: Place = Place::Account(AccountTab::Security);

/// A passkey, as the page shows it.
#[derive(Debug, Clone)]
pub(crate) struct Passkey {
    /// Its id, in base64url.
    pub(crate) id: String,
    /// What the person calls it.
    pub(crate) name: String,
    /// When it was added.
    pub(crate) created_at: Timestamp,
    /// When it was last used.
    pub(crate) last_used_at: Option<Timestamp>,
}

impl From<PasskeySummary> for Passkey {
    fn from(passkey: PasskeySummary) -> Self {
        Self {
            id: passkey.id.to_string(),
            name: passkey.name,
            created_at: passkey.created_at,
            last_used_at: passkey.last_used_at,
        }
    }
}

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// The person.
    pub(crate) person: &'v Person,
    /// How many recovery codes are left.
    pub(crate) recovery_codes: i64,
    /// The passkeys; `None`: there are none here.
    pub(crate) passkeys: Option<&'v [Passkey]>,
    /// What the upstream provider is called, if there is one, and whether the person has an account there.
    pub(crate) upstream: Option<(&'v str, bool)>,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
    /// The present.
    pub(crate) now: Timestamp,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let content = html! {
        div.head { div { h1 { "Security" } p { "How you sign in, and what keeps others from doing it in your name." } } }
        (summary(view.faults))
        div.grid {
            (password_card(view))
            (totp_card(view))
            @if let Some(passkeys) = view.passkeys { (passkeys_card(view, passkeys)) }
            @if let Some((name, is_linked)) = view.upstream { (upstream_card(view, name, is_linked)) }
        }
    };
    page(
        Page {
            title: "Security",
            reader: Some(view.reader),
            width: Width::Wide,
            passkeys: false,
        },
        content,
    )
}

fn password_card(view: &View<'_>) -> Markup {
    html! {
        section.card aria-labelledby="password-card" {
            h2 #password-card { "Password" }
            @if view.person.has_password {
                p.soft { "You have a password. Changing it signs you out everywhere else." }
                p { a.button.button-plain href="/console/account/password" { "Change password" } }
            } @else {
                p.soft { "You have no password, and sign in by other ways." }
                p { a.button.button-plain href="/console/account/password" { "Set a password" } }
            }
        }
    }
}

fn totp_card(view: &View<'_>) -> Markup {
    html! {
        section.card aria-labelledby="totp-card" {
            h2 #totp-card { "Authenticator " @if view.person.has_totp { span.tag.tag-accent { "on" } } @else { span.tag { "off" } } }
            @if view.person.has_totp {
                p.soft { "Beside your password you are asked for a code of the authenticator app on your phone." }
                @if view.recovery_codes <= CODES_FEW {
                    (notice(Tone::Warn, html! { p { strong { (codes_left(view.recovery_codes)) } " Without your phone they are the only way in. Make new ones." } }))
                } @else {
                    p { (codes_left(view.recovery_codes)) }
                }
                form method="post" action="/console/account/recovery-codes" {
                    (view.form)
                    button.button.button-plain type="submit" { "Make new recovery codes" }
                }
                (fold_danger("Turn it off", html! {
                    p { "Your password alone will then be enough to sign in as you." }
                    form method="post" action="/console/account/totp/off" {
                        (view.form)
                        button.button.button-danger type="submit" { "Turn off the authenticator" }
                    }
                }))
            } @else {
                p.soft { "A second proof beside the password: a code that an app on your phone shows. A stolen password is then not enough." }
                p { a.button.button-primary href="/console/account/totp" { "Set up an authenticator" } }
            }
        }
    }
}

fn codes_left(count: i64) -> String {
    match count {
        0 => "You have no recovery codes left.".to_owned(),
        1 => "You have one recovery code left.".to_owned(),
        count => format!("You have {count} recovery codes left."),
    }
}

fn passkeys_card(view: &View<'_>, passkeys: &[Passkey]) -> Markup {
    html! {
        section.card aria-labelledby="passkeys-card" {
            h2 #passkeys-card { "Passkeys" }
            p.soft { "Sign in by fingerprint, face or a security key. A passkey can't be guessed, and works on this site alone." }
            @if !passkeys.is_empty() {
                ul.rows {
                    @for passkey in passkeys {
                        li {
                            div.row {
                                span.row-main {
                                    span.row-title { (passkey.name) }
                                    br;
                                    span.small.soft {
                                        "added " (day(passkey.created_at)) ", "
                                        @match passkey.last_used_at { Some(at) => { "used " (days_ago(at, view.now)) }, None => "not used yet" }
                                    }
                                }
                                (fold_danger("Remove", html! {
                                    p { "It will not sign you in any more, and you are signed out everywhere else." }
                                    form method="post" action="/console/account/passkeys/remove" {
                                        (view.form)
                                        input type="hidden" name="passkey" value=(passkey.id);
                                        button.button.button-danger type="submit" { "Remove " (passkey.name) }
                                    }
                                }))
                            }
                        }
                    }
                }
            }
            p { a.button.button-plain href="/console/account/passkeys/new" { "Add a passkey" } }
        }
    }
}

fn upstream_card(view: &View<'_>, name: &str, is_linked: bool) -> Markup {
    html! {
        section.card aria-labelledby="upstream-card" {
            h2 #upstream-card { (name) " " @if is_linked { span.tag.tag-accent { "on" } } @else { span.tag { "off" } } }
            @if is_linked {
                p.soft { "You can sign in with your account at " (name) "." }
                (fold_danger("Stop signing in that way", html! {
                    form method="post" action="/console/account/upstream/off" {
                        (view.form)
                        button.button.button-danger type="submit" { "Stop signing in with " (name) }
                    }
                }))
            } @else {
                p.soft { "Sign in with your account at " (name) " instead of a password." }
                p { a.button.button-plain href="/console/account/upstream" { "Use " (name) } }
            }
        }
    }
}

/// The page that sets a password.
pub(crate) fn password_view(
    reader: &Reader,
    form: &FormToken,
    person: &Person,
    faults: &Faults,
) -> Markup {
    let title = if person.has_password {
        "Change your password"
    } else {
        "Set a password"
    };
    let content = html! {
        (back(PATH, "Security"))
        div.card {
            h1 { (title) }
            p.soft { "You stay signed in here, and are signed out everywhere else." }
            (summary(faults))
            form.stack method="post" action="/console/account/password" {
                (form)
                input.hidden-visually type="text" name="login" value=(person.login) autocomplete="username" aria-hidden="true" tabindex="-1" readonly;
                (Field { label: "New password", focused: true, ..new_password_field() }.render(faults))
                div.actions { (submit("Save")) a.button.button-plain href=(PATH) { "Cancel" } }
            }
        }
    };
    page(
        Page {
            title,
            reader: Some(reader),
            width: Width::Narrow,
            passkeys: false,
        },
        content,
    )
}

/// The page that adds a passkey.
pub(crate) fn new_passkey_view(
    reader: &Reader,
    form: &FormToken,
    name: &str,
    faults: &Faults,
) -> Markup {
    let content = html! {
        (back(PATH, "Security"))
        div.card {
            h1 { "Add a passkey" }
            p.soft { "Your device then asks for your fingerprint, your face or its PIN. None of them leaves the device." }
            (summary(faults))
            form.stack method="post" action="/console/account/passkeys/new" data-passkey="create" data-begin="/console/account/passkeys/begin" hidden {
                (form)
                (passkey_fields())
                (Field { name: "name", label: "What to call it", hint: Some("For you to tell it from others: the device, or where it is kept."),
                    value: name, focused: true, ..Field::default() }.render(faults))
                p.fault role="alert" data-passkey-fault hidden { "No passkey was made. Please try again." }
                div.actions { (submit("Continue")) a.button.button-plain href=(PATH) { "Cancel" } }
            }
            noscript { p { "Passkeys need scripts, which are off in this browser." } }
        }
    };
    page(
        Page {
            title: "Add a passkey",
            reader: Some(reader),
            width: Width::Narrow,
            passkeys: true,
        },
        content,
    )
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route(PATH, get(show))
        .route(
            "/console/account/password",
            get(show_password).post(change_password),
        )
        .route(
            "/console/account/passkeys/new",
            get(show_new_passkey).post(add_passkey),
        )
        .route("/console/account/passkeys/begin", post(begin_passkey))
        .route("/console/account/passkeys/remove", post(remove_passkey))
        .route("/console/account/upstream", get(link_upstream))
        .route("/console/account/upstream/off", post(unlink_upstream))
}

async fn show(State(console): State<Console>, signed: Signed) -> Result<Response, Failure> {
    Ok(render(&console, &signed, &Faults::NONE)
        .await?
        .into_response())
}

async fn render(console: &Console, signed: &Signed, faults: &Faults) -> Result<Markup, Failure> {
    let accounts = &console.accounts;
    let session = &signed.session;
    let recovery_codes = accounts.recovery_codes_left(session).await?;
    let passkeys: Option<Vec<Passkey>> = if accounts.passkeys_available() {
        let passkeys = accounts.passkeys(session).await?;
        Some(passkeys.into_iter().map(Passkey::from).collect())
    } else {
        None
    };
    let upstream = match accounts.upstream_name() {
        Some(name) => Some((name, accounts.has_upstream(session).await?)),
        None => None,
    };
    Ok(view(&View {
        reader: &signed.reader(PLACE),
        form: &signed.form,
        person: &session.person,
        recovery_codes,
        passkeys: passkeys.as_deref(),
        upstream,
        faults,
        now: console.clock.now(),
    }))
}

async fn show_password(
    State(console): State<Console>,
    signed: Signed,
) -> Result<Response, Failure> {
    require_recent_proof(&console, &signed)?;
    let reader = signed.reader(PLACE);
    let page = password_view(&reader, &signed.form, &signed.session.person, &Faults::NONE);
    Ok(page.into_response())
}

async fn change_password(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let password = Secret::new(form.get("password").to_owned());
    match console
        .accounts
        .change_password(&caller, &signed.session, &password)
        .await
    {
        Ok(()) => Ok(see_other(PATH)),
        Err(error @ Error::InvalidFields(_)) => {
            let faults = faults_of(&error).unwrap_or_default();
            let reader = signed.reader(PLACE);
            let page = password_view(&reader, &signed.form, &signed.session.person, &faults);
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

async fn show_new_passkey(
    State(console): State<Console>,
    signed: Signed,
) -> Result<Response, Failure> {
    if !console.accounts.passkeys_available() {
        return Err(Failure::NoPage);
    }
    require_recent_proof(&console, &signed)?;
    Ok(new_passkey_view(&signed.reader(PLACE), &signed.form, "", &Faults::NONE).into_response())
}

async fn begin_passkey(
    State(console): State<Console>,
    signed: Signed,
    _: Form,
) -> Result<Json<Value>, Failure> {
    let accounts = &console.accounts;
    let challenge = accounts.begin_passkey_registration(&signed.session).await?;
    Ok(challenge_json(&challenge))
}

async fn add_passkey(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let (ceremony, credential) = passkey_answer(&form)?;
    let name = form.get("name").trim();
    match console
        .accounts
        .finish_passkey_registration(&caller, &signed.session, &ceremony, name, credential)
        .await
    {
        Ok(_) => Ok(see_other(PATH)),
        Err(error @ (Error::InvalidFields(_) | Error::NotAccepted)) => {
            let faults = faults_of(&error)
                .unwrap_or_else(|| Faults::general("This passkey can't be used here."));
            let page = new_passkey_view(&signed.reader(PLACE), &signed.form, name, &faults);
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

async fn remove_passkey(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let id = form.get("passkey").parse()?;
    let removed = console
        .accounts
        .remove_passkey(&caller, &signed.session, &id)
        .await;
    after(&console, &signed, removed).await
}

async fn link_upstream(
    State(console): State<Console>,
    signed: Signed,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    super::upstream::require_own_link(&headers)?;
    require_recent_proof(&console, &signed)?;
    super::upstream::set_out(&console, Purpose::Link(&signed.session), PATH).await
}

async fn unlink_upstream(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
) -> Result<Response, Failure> {
    let unlinked = console
        .accounts
        .unlink_upstream(&caller, &signed.session)
        .await;
    after(&console, &signed, unlinked).await
}

/// Back to the page, with what was wrong: the last way in stays.
pub(crate) async fn after(
    console: &Console,
    signed: &Signed,
    done: Result<(), Error>,
) -> Result<Response, Failure> {
    match done {
        Ok(()) => Ok(see_other(PATH)),
        Err(error @ (Error::Forbidden(_) | Error::InvalidFields(_))) => {
            let faults = faults_of(&error).unwrap_or_default();
            let page = render(console, signed, &faults).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(error) => Err(error.into()),
    }
}
