//! One of a developer's apps: its settings, what it proves itself by, who has installed it, and what the token endpoint refused it lately.

use auth::{
    Error,
    client::{
        app::{App, AppInput, ClientKind},
        app_secret::{AppSecretId, Overlap},
        developer::AppDetail,
    },
};
use axum::{
    Extension, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kernel::{caller::Caller, clock::Timestamp, id::AppId, version::Version};
use maud::{Markup, html};

use super::developer_apps::{PATH, input_of, kind_words, require_developer, secret_view, settings};
use crate::{
    Console,
    component::{
        Faults, Field, Shape, Tone, back, day, days_ago, faults_of, fold, fold_danger, monogram,
        notice, scope_words, submit, summary, time,
    },
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{Page, Place, Reader, Width, page},
    session::{Signed, require_recent_proof, see_other},
};

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// The app.
    pub(crate) detail: &'v AppDetail,
    /// The key that was typed and refused.
    pub(crate) jwk: &'v str,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
    /// The present.
    pub(crate) now: Timestamp,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let app = &view.detail.app;
    let base = format!("{PATH}/{}", app.id);
    let content = html! {
        (back(PATH, "Your apps"))
        div.head {
            div.who {
                (monogram(&app.name, false))
                div { h1 { (app.name) } p { "Runs " (kind_words(app.kind).0) " · made " (day(app.created_at)) } }
            }
            a.button.button-primary href={ (base) "/settings" } { "Change settings" }
        }
        (summary(view.faults))
        div.columns {
            div {
                (settings_card(app))
                @if app.kind == ClientKind::Confidential { (secrets_card(view, &base)) (keys_card(view, &base)) }
            }
            div { (installs_card(view)) }
        }
        (errors_part(view))
    };
    page(
        Page {
            title: &app.name,
            reader: Some(view.reader),
            width: Width::Wide,
            passkeys: false,
        },
        content,
    )
}

fn settings_card(app: &App) -> Markup {
    html! {
        section.card aria-labelledby="settings" {
            h2 #settings { "Settings" }
            dl.facts {
                dt { "Client id" } dd { code.code { (app.id) } }
                dt { "Home page" } dd { (app.homepage_url.as_deref().unwrap_or("none")) }
                dt { "Redirect URIs" }
                dd {
                    @if app.redirect_uris.is_empty() { "none: it can't send merchants here" }
                    @else { ul { @for uri in &app.redirect_uris { li { code.code { (uri) } } } } }
                }
                dt { "May ask for" }
                dd {
                    @match app.scopes {
                        None => "whatever a merchant may give",
                        Some(scopes) => ul { @for scope in scopes.iter() { li { (scope_words(scope)) } } },
                    }
                }
                dt { "Needs" }
                dd {
                    @if app.required_scopes.is_empty() { "nothing: merchants may untick everything" }
                    @else { ul { @for scope in app.required_scopes.iter() { li { (scope_words(scope)) } } } }
                }
            }
        }
    }
}

fn secrets_card(view: &View<'_>, base: &str) -> Markup {
    let secrets = &view.detail.secrets;
    html! {
        section.card aria-labelledby="secrets" {
            h2 #secrets { "Client secrets" }
            @if secrets.is_empty() {
                p.soft { @if view.detail.keys.is_empty() { "None: the app can't get tokens." } @else { "None: the app proves itself by its keys." } }
            } @else {
                ul.rows {
                    @for secret in secrets {
                        li {
                            div.row {
                                span.row-main {
                                    span.row-title.code { @if secret.hint.is_empty() { "a secret" } @else { "…" (secret.hint) } }
                                    br;
                                    span.small.soft {
                                        "made " (day(secret.created_at))
                                        @if let Some(end) = secret.expires_at { ", ends " (time(end)) }
                                    }
                                }
                                (fold_danger("Take back", html! {
                                    p { "Whatever still uses it is refused at once." }
                                    form method="post" action={ (base) "/secrets/revoke" } {
                                        (view.form)
                                        input type="hidden" name="secret" value=(secret.id);
                                        button.button.button-danger type="submit" { "Take back now" }
                                    }
                                }))
                            }
                        }
                    }
                }
            }
            (fold("Make a new secret", html! {
                form.stack method="post" action={ (base) "/secrets" } {
                    (view.form)
                    fieldset {
                        legend.legend { "And those that there are?" }
                        ul.choices {
                            @for (value, words, hint) in [
                                ("day", "End in a day", "time to put the new one in place"),
                                ("week", "End in a week", "for slow deployments"),
                                ("now", "End now", "if one has leaked: the app is refused until it has the new one"),
                            ] {
                                li {
                                    label.choice for={ "overlap-" (value) } {
                                        input id={ "overlap-" (value) } type="radio" name="overlap" value=(value) checked[value == "day"] required;
                                        span { (words) span.hint { (hint) } }
                                    }
                                }
                            }
                        }
                    }
                    (submit("Make a new secret"))
                }
            }))
        }
    }
}

fn keys_card(view: &View<'_>, base: &str) -> Markup {
    let has_fault = view.faults.of("jwk").is_some();
    html! {
        section.card aria-labelledby="keys" {
            h2 #keys { "Keys" }
            p.soft { "Instead of a secret an app can sign by a private key of its own (private_key_jwt). We keep the public part alone." }
            @if !view.detail.keys.is_empty() {
                ul.rows {
                    @for key in &view.detail.keys {
                        li {
                            div.row {
                                span.row-main {
                                    span.row-title.code { (key.kid) }
                                    br;
                                    span.small.soft { (key.kty) " · added " (day(key.created_at)) }
                                }
                                (fold_danger("Remove", html! {
                                    p { "What is signed by it is refused at once." }
                                    form method="post" action={ (base) "/keys/remove" } {
                                        (view.form)
                                        input type="hidden" name="kid" value=(key.kid);
                                        button.button.button-danger type="submit" { "Remove now" }
                                    }
                                }))
                            }
                        }
                    }
                }
            }
            details.fold open[has_fault] {
                summary { "Add a key" }
                div.fold-body {
                    form.stack method="post" action={ (base) "/keys" } {
                        (view.form)
                        (Field { name: "jwk", label: "Public key as JWK", shape: Shape::Lines, length_max: 8_192, value: view.jwk,
                            hint: Some("One JSON object: EC P-256, Ed25519 or RSA. Never paste a private key anywhere."), ..Field::default() }.render(view.faults))
                        (submit("Add the key"))
                    }
                }
            }
        }
    }
}

fn installs_card(view: &View<'_>) -> Markup {
    let detail = view.detail;
    html! {
        section.card aria-labelledby="installs" {
            h2 #installs { "Installs" }
            @if detail.installs.is_empty() {
                p.soft { "No merchant has installed it yet." }
            } @else {
                p.soft { (living_words(detail.living_installs)) }
                ul.rows {
                    @for install in &detail.installs {
                        li {
                            div.row {
                                span.row-main {
                                    span.row-title { (install.merchant_name) }
                                    br;
                                    span.small.soft {
                                        @match install.last_used_at { Some(at) => { "used " (days_ago(at, view.now)) }, None => "not used yet" }
                                    }
                                }
                                @if install.grant.is_living(view.now) {
                                    @match install.grant.expires_at {
                                        Some(end) => span.tag { "until " (day(end)) },
                                        None => span.tag.tag-accent { "installed" },
                                    }
                                } @else { span.tag { "ended" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn living_words(count: i64) -> String {
    match count {
        0 => "No merchant has it installed now.".to_owned(),
        1 => "One merchant has it installed now.".to_owned(),
        count => format!("{count} merchants have it installed now."),
    }
}

fn errors_part(view: &View<'_>) -> Markup {
    html! {
        section.stack aria-labelledby="errors" {
            h2 #errors { "Refused at /oauth/token lately" }
            @if view.detail.errors.is_empty() {
                (notice(Tone::Plain, html! { p { "Nothing. What the token endpoint refuses this app is shown here, so that you need not search for it in its logs." } }))
            } @else {
                div.table {
                    table {
                        caption.hidden-visually { "Refused token requests, the newest first" }
                        thead { tr { th scope="col" { "Error" } th scope="col" { "Why" } th scope="col" { "Grant type" } th scope="col" { "When" } th scope="col" { "From where" } } }
                        tbody {
                            @for error in &view.detail.errors {
                                tr {
                                    th scope="row" { code.code { (error.error) } }
                                    td data-label="Why" { (error.description) }
                                    td data-label="Grant type" { code.code { (error.grant_type.as_deref().unwrap_or("none")) } }
                                    td data-label="When" { (time(error.occurred_at)) }
                                    td data-label="From where" { (error.address.as_deref().unwrap_or("unknown")) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What the page that changes the settings shows.
pub(crate) struct SettingsView<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its form carries.
    pub(crate) form: &'v FormToken,
    /// The app.
    pub(crate) app: &'v App,
    /// What was typed.
    pub(crate) input: &'v AppInput,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
}

/// The page that changes the settings.
pub(crate) fn settings_view(view: &SettingsView<'_>) -> Markup {
    let base = format!("{PATH}/{}", view.app.id);
    let content = html! {
        (back(&base, &view.app.name))
        div.card {
            h1 { "Settings of " (view.app.name) }
            (summary(view.faults))
            form.stack method="post" action={ (base) "/settings" } {
                (view.form)
                input type="hidden" name="version" value=(view.app.version);
                (settings(view.input, view.faults))
                div.actions { (submit("Save")) a.button.button-plain href=(base) { "Cancel" } }
            }
        }
    };
    page(
        Page {
            title: "Settings",
            reader: Some(view.reader),
            width: Width::Middle,
            passkeys: false,
        },
        content,
    )
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/developer/apps/{app}", get(show))
        .route(
            "/console/developer/apps/{app}/settings",
            get(show_settings).post(change),
        )
        .route("/console/developer/apps/{app}/secrets", post(make_secret))
        .route(
            "/console/developer/apps/{app}/secrets/revoke",
            post(revoke_secret),
        )
        .route("/console/developer/apps/{app}/keys", post(add_key))
        .route(
            "/console/developer/apps/{app}/keys/remove",
            post(remove_key),
        )
}

fn app_id(text: &str) -> Result<AppId, Failure> {
    text.parse().map_err(|_cause| Failure::NoPage)
}

fn path(id: AppId) -> String {
    format!("{PATH}/{id}")
}

async fn show(
    State(console): State<Console>,
    signed: Signed,
    Path(app): Path<String>,
) -> Result<Response, Failure> {
    require_developer(&signed)?;
    let page = render(&console, &signed, app_id(&app)?, "", &Faults::NONE).await?;
    Ok(page.into_response())
}

async fn render(
    console: &Console,
    signed: &Signed,
    id: AppId,
    jwk: &str,
    faults: &Faults,
) -> Result<Markup, Failure> {
    let detail = console.developers.app(&signed.session, id).await?;
    Ok(view(&View {
        reader: &signed.reader(Place::Developer),
        form: &signed.form,
        detail: &detail,
        jwk,
        faults,
        now: console.clock.now(),
    }))
}

async fn show_settings(
    State(console): State<Console>,
    signed: Signed,
    Path(app): Path<String>,
) -> Result<Response, Failure> {
    let id = app_id(&app)?;
    let app = console.developers.app(&signed.session, id).await?.app;
    require_recent_proof(&console, &signed)?;
    let input = input_from(&app);
    let page = settings_view(&SettingsView {
        reader: &signed.reader(Place::Developer),
        form: &signed.form,
        app: &app,
        input: &input,
        faults: &Faults::NONE,
    });
    Ok(page.into_response())
}

fn input_from(app: &App) -> AppInput {
    AppInput {
        name: app.name.clone(),
        kind: app.kind,
        redirect_uris: app.redirect_uris.clone(),
        scopes: app.scopes,
        required_scopes: app.required_scopes,
        homepage_url: app.homepage_url.clone(),
    }
}

async fn change(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(app): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let id = app_id(&app)?;
    let developers = &console.developers;
    let app = developers.app(&signed.session, id).await?.app;
    let input = input_of(&form, app.kind)?;
    let version: Version = version_of(form.get("version"))?;
    let changed = developers
        .change_app(&caller, &signed.session, id, version, input.clone())
        .await;
    let (input, error) = match changed {
        Ok(_) => return Ok(see_other(&path(id))),
        Err(error @ Error::Changed(_)) => (input_from(&app), error),
        Err(error @ Error::InvalidFields(_)) => (input, error),
        Err(error) => return Err(error.into()),
    };
    let page = settings_view(&SettingsView {
        reader: &signed.reader(Place::Developer),
        form: &signed.form,
        app: &app,
        input: &input,
        faults: &faults_of(&error).unwrap_or_default(),
    });
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

fn version_of(text: &str) -> Result<Version, Failure> {
    serde_json::from_str(text).map_err(|_cause| Failure::Unreadable)
}

async fn make_secret(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(app): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let id = app_id(&app)?;
    let overlap = match form.get("overlap") {
        "now" => Overlap::Now,
        "day" => Overlap::Day,
        "week" => Overlap::Week,
        _ => return Err(Failure::Unreadable),
    };
    let developers = &console.developers;
    let made = developers
        .rotate_secret(&caller, &signed.session, id, overlap)
        .await;
    match made {
        Ok((_, secret)) => {
            let name = developers.app(&signed.session, id).await?.app.name;
            let reader = signed.reader(Place::Developer);
            Ok(secret_view(&reader, id, &name, secret.expose(), false).into_response())
        }
        Err(error) => again(&console, &signed, id, "", error).await,
    }
}

/// The app's page with what was wrong.
async fn again(
    console: &Console,
    signed: &Signed,
    id: AppId,
    jwk: &str,
    error: Error,
) -> Result<Response, Failure> {
    let faults = match &error {
        Error::Forbidden(_) => faults_of(&error).unwrap_or_default(),
        Error::InvalidFields(errors) => {
            // Whichever member of the key it is, it is in the one field.
            Faults::at("jwk", kernel::problem::sentence(errors))
        }
        _ => return Err(error.into()),
    };
    let page = render(console, signed, id, jwk, &faults).await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

async fn revoke_secret(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(app): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let id = app_id(&app)?;
    let secret: AppSecretId = form
        .get("secret")
        .parse()
        .map_err(|_cause| Failure::Unreadable)?;
    console
        .developers
        .revoke_secret(&caller, &signed.session, id, secret)
        .await?;
    Ok(see_other(&path(id)))
}

async fn add_key(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(app): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let id = app_id(&app)?;
    let jwk = form.get("jwk").trim();
    match console
        .developers
        .add_key(&caller, &signed.session, id, jwk)
        .await
    {
        Ok(_) => Ok(see_other(&path(id))),
        Err(error) => again(&console, &signed, id, jwk, error).await,
    }
}

async fn remove_key(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(app): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let id = app_id(&app)?;
    console
        .developers
        .remove_key(&caller, &signed.session, id, form.get("kid"))
        .await?;
    Ok(see_other(&path(id)))
}
