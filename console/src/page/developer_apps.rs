//! A developer's apps: the list, and making one.

use auth::{
    Error,
    client::{
        app::{App, AppInput, ClientKind},
        secret::Secret,
    },
};
use axum::{
    Extension, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use kernel::{
    caller::Caller,
    id::AppId,
    scope::{Scope, ScopeSet},
};
use maud::{Markup, html};

use crate::{
    Console,
    component::{
        Faults, Field, Shape, back, day, faults_of, grouped, monogram, scope_words, submit, summary,
    },
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{Page, Place, Reader, Width, page},
    session::{Signed, require_recent_proof},
};

/// Where the list is.
pub(crate) const PATH: &str = "/console/developer/apps";

/// The page of a developer's apps.
pub(crate) fn view(reader: &Reader, apps: &[App]) -> Markup {
    let content = html! {
        div.head {
            div { h1 { "Your apps" } p { "What you have made for merchants to install." } }
            @if !apps.is_empty() { a.button.button-primary href={ (PATH) "/new" } { "Make an app" } }
        }
        @if apps.is_empty() {
            div.empty {
                h2 { "No app yet" }
                p { "Making one gives you a client id and, for apps on a server, a secret. You can change everything but the kind later." }
                div.actions { a.button.button-primary href={ (PATH) "/new" } { "Make an app" } }
            }
        } @else {
            ul.rows {
                @for app in apps {
                    li {
                        a.row href={ (PATH) "/" (app.id) } {
                            (monogram(&app.name, true))
                            span.row-main { span.row-title { (app.name) } br; code.code.small.soft { (app.id) } }
                            span.row-end.small.soft { span { "made " (day(app.created_at)) } span.tag { (kind_words(app.kind).0) } }
                        }
                    }
                }
            }
        }
    };
    page(
        Page {
            title: "Your apps",
            reader: Some(reader),
            width: Width::Wide,
            passkeys: false,
        },
        content,
    )
}

/// What a kind of client is called, and what it is.
pub(crate) const fn kind_words(kind: ClientKind) -> (&'static str, &'static str) {
    match kind {
        ClientKind::Confidential => (
            "on a server",
            "keeps a secret or a key that nobody else can read",
        ),
        ClientKind::Public => (
            "on people's devices",
            "a program or a page that anybody can take apart, so it has no secret",
        ),
    }
}

/// What the page that makes an app shows.
pub(crate) struct NewView<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its form carries.
    pub(crate) form: &'v FormToken,
    /// What was typed.
    pub(crate) input: &'v AppInput,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
}

/// The page that makes an app.
pub(crate) fn new_view(view: &NewView<'_>) -> Markup {
    let content = html! {
        (back(PATH, "Your apps"))
        div.card {
            h1 { "Make an app" }
            (summary(view.faults))
            form.stack method="post" action={ (PATH) "/new" } {
                (view.form)
                fieldset {
                    legend.legend { "Where does it run?" }
                    ul.choices {
                        @for (kind, value) in [(ClientKind::Confidential, "confidential"), (ClientKind::Public, "public")] {
                            li {
                                label.choice for={ "kind-" (value) } {
                                    input id={ "kind-" (value) } type="radio" name="kind" value=(value) checked[view.input.kind == kind] required;
                                    span { (crate::component::capital(kind_words(kind).0)) span.hint { (kind_words(kind).1) } }
                                }
                            }
                        }
                    }
                    p.hint { "This can't be changed later." }
                }
                (settings(view.input, view.faults))
                div.actions { (submit("Make the app")) a.button.button-plain href=(PATH) { "Cancel" } }
            }
        }
    };
    page(
        Page {
            title: "Make an app",
            reader: Some(view.reader),
            width: Width::Middle,
            passkeys: false,
        },
        content,
    )
}

/// The fields of an app that may be changed.
pub(crate) fn settings(input: &AppInput, faults: &Faults) -> Markup {
    let redirect_uris = input.redirect_uris.join("\n");
    html! {
        (Field { name: "name", label: "Name", hint: Some("Merchants read it when your app asks for access."), value: &input.name,
            ..Field::default() }.render(faults))
        (Field { name: "homepage_url", label: "Home page", hint: Some("Its host is shown to merchants: https://your-app.example"), kind: "url",
            value: input.homepage_url.as_deref().unwrap_or_default(), autocomplete: "url", length_max: 2_000, optional: true, ..Field::default() }.render(faults))
        (Field { name: "redirect_uris", label: "Redirect URIs", shape: Shape::Lines, length_max: 45_000, optional: true, value: &redirect_uris,
            hint: Some("One on each line. Merchants are sent back there and nowhere else; they must match to the letter, but for the port of http://127.0.0.1 and http://[::1]."),
            ..Field::default() }.render(faults))
        (scope_limits(input, faults))
    }
}

fn scope_limits(input: &AppInput, faults: &Faults) -> Markup {
    let fault = faults.of("scopes").or_else(|| faults.of("required_scopes"));
    let has = |set: ScopeSet, scope: Scope| set.iter().any(|it| it == scope);
    html! {
        fieldset.scopes-table #scopes aria-describedby=[fault.as_ref().map(|_| "scopes-fault")] {
            legend.legend { "What it may ask for" }
            p.hint { "Ask for little: merchants see the list. What is needed can't be unticked by them." }
            div.field { @if let Some(fault) = &fault { p.fault #scopes-fault { (fault) } } }
            label.choice for="scopes-all" {
                input #scopes-all type="checkbox" name="scopes_all" value="yes" checked[input.scopes.is_none()];
                span { "Whatever a merchant may give" span.hint { "then only the boxes for what is needed count" } }
            }
            div.table.boxes {
                table {
                    caption.hidden-visually { "Scopes" }
                    thead { tr { th scope="col" { "Scope" } th scope="col" { "May ask" } th scope="col" { "Needs it" } } }
                    tbody {
                        @for (_, scopes) in grouped(ScopeSet::all()) {
                            @for scope in scopes { (scope_row(scope, input.scopes.is_some_and(|set| has(set, scope)), has(input.required_scopes, scope))) }
                        }
                        (scope_row(Scope::OrdersPiiRead, input.scopes.is_some_and(|set| has(set, Scope::OrdersPiiRead)), false))
                    }
                }
            }
        }
    }
}

fn scope_row(scope: Scope, asks: bool, needs: bool) -> Markup {
    let id = scope.name().replace([':', '.'], "-");
    html! {
        tr {
            th scope="row" { (scope_words(scope)) br; code.code.small.soft { (scope) } }
            td {
                label.box for={ "asks-" (id) } {
                    input id={ "asks-" (id) } type="checkbox" name="scope" value=(scope) checked[asks];
                    span.hidden-visually { "May ask for " (scope) }
                }
            }
            td {
                // Personal data is the merchant's to withhold, whatever an app says that it needs.
                @if scope != Scope::OrdersPiiRead {
                    label.box for={ "needs-" (id) } {
                        input id={ "needs-" (id) } type="checkbox" name="required_scope" value=(scope) checked[needs];
                        span.hidden-visually { "Needs " (scope) }
                    }
                }
            }
        }
    }
}

/// What was typed and ticked.
pub(crate) fn input_of(form: &Form, kind: ClientKind) -> Result<AppInput, Failure> {
    let set = |name: &'static str| {
        form.all(name)
            .map(str::parse)
            .collect::<Result<ScopeSet, _>>()
            .map_err(|_cause| Failure::Unreadable)
    };
    let homepage_url = form.get("homepage_url").trim();
    let redirect_uris = form.get("redirect_uris").lines().map(str::trim);
    Ok(AppInput {
        name: form.get("name").trim().to_owned(),
        kind,
        redirect_uris: redirect_uris
            .filter(|line| !line.is_empty())
            .map(ToOwned::to_owned)
            .collect(),
        scopes: if form.has("scopes_all") {
            None
        } else {
            Some(set("scope")?)
        },
        required_scopes: set("required_scope")?,
        homepage_url: (!homepage_url.is_empty()).then(|| homepage_url.to_owned()),
    })
}

/// A secret, shown this once.
pub(crate) fn secret_view(
    reader: &Reader,
    app: AppId,
    name: &str,
    secret: &str,
    is_new: bool,
) -> Markup {
    let href = format!("{PATH}/{app}");
    let content = html! {
        div.card {
            h1 { @if is_new { (name) " is made" } @else { "A new secret of " (name) } }
            p { "The client secret is shown this once. Put it where your app reads its secrets, and nowhere that others can read." }
            dl.facts { dt { "Client id" } dd { code.code { (app) } } }
            div.stack { h2 { "Client secret" } code.once { (secret) } }
            p { a.button.button-primary href=(href) { "I have kept it" } }
        }
    };
    page(
        Page {
            title: "Client secret",
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
        .route(PATH, get(show))
        .route("/console/developer/apps/new", get(show_new).post(make))
}

/// Nothing for developers and operators, or else a page that says so.
pub(crate) fn require_developer(signed: &Signed) -> Result<(), Failure> {
    let person = &signed.session.person;
    if person.is_developer || person.is_operator {
        Ok(())
    } else {
        Err(Error::Forbidden(
            "Apps are made by developers. An operator of this installation can invite you as one.",
        )
        .into())
    }
}

async fn show(State(console): State<Console>, signed: Signed) -> Result<Response, Failure> {
    require_developer(&signed)?;
    let apps = console.developers.apps(&signed.session).await?;
    Ok(view(&signed.reader(Place::Developer), &apps).into_response())
}

async fn show_new(State(console): State<Console>, signed: Signed) -> Result<Response, Failure> {
    require_developer(&signed)?;
    require_recent_proof(&console, &signed)?;
    let input = AppInput {
        scopes: Some(ScopeSet::default()),
        ..AppInput::default()
    };
    Ok(new_view(&NewView {
        reader: &signed.reader(Place::Developer),
        form: &signed.form,
        input: &input,
        faults: &Faults::NONE,
    })
    .into_response())
}

async fn make(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let kind = match form.get("kind") {
        "confidential" => ClientKind::Confidential,
        "public" => ClientKind::Public,
        _ => return Err(Failure::Unreadable),
    };
    let input = input_of(&form, kind)?;
    let reader = signed.reader(Place::Developer);
    match console
        .developers
        .create_app(&caller, &signed.session, input.clone())
        .await
    {
        Ok(new) => {
            let app = new.app;
            let secret = new.client_secret.as_ref().map(Secret::expose);
            Ok(match secret {
                Some(secret) => {
                    secret_view(&reader, app.id, &app.name, secret, true).into_response()
                }
                None => crate::session::see_other(&format!("{PATH}/{}", app.id)),
            })
        }
        Err(error @ (Error::InvalidFields(_) | Error::Forbidden(_))) => {
            let page = new_view(&NewView {
                reader: &reader,
                form: &signed.form,
                input: &input,
                faults: &faults_of(&error).unwrap_or_default(),
            });
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(error) => Err(error.into()),
    }
}
