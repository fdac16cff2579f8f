//! One app of a shop: what it may do, and how that is narrowed, extended or ended.

use auth::{
    Error,
    grant::{
        Term,
        installed::{GrantChange, InstalledApp},
    },
};
use axum::{
    Extension, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kernel::{
    caller::Caller,
    clock::Timestamp,
    id::{GrantId, LocationId, MerchantId},
    scope::{Scope, ScopeSet},
};
use maud::{Markup, html};

use super::{
    consent::{EndChoice, end_choice, place_choices},
    ids,
    installed_apps::{NEAR, term_words, used},
};
use crate::{
    Console,
    component::{
        Faults, Tone, back, faults_of, fold_danger, grouped, is_far_reaching, monogram, notice,
        scope_item, scope_list, submit, summary, tick, time,
    },
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{MerchantTab, Page, Place as Part, Reader, Width, page},
    place::{Place, names_of, places},
    session::{Signed, require_recent_proof, see_other},
};

/// What the page of an app shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// The app.
    pub(crate) app: &'v InstalledApp,
    /// The names of the locations that it is limited to; `None`: all.
    pub(crate) places: Option<&'v [String]>,
    /// Whether the reader decides what apps may do.
    pub(crate) decides: bool,
    /// The present.
    pub(crate) now: Timestamp,
}

/// The page of an app.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let (app, grant) = (&view.app.app, &view.app.grant);
    let living = grant.is_living(view.now);
    let base = path(grant.merchant_id, grant.id);
    let is_near = living
        && grant
            .expires_at
            .is_some_and(|end| end.since(view.now) <= NEAR);
    let content = html! {
        (back(&format!("/console/merchants/{}/apps", grant.merchant_id), "Apps"))
        div.head {
            div.who {
                (monogram(&app.name, false))
                div {
                    h1 { (app.name) }
                    p {
                        @if let Some(host) = homepage_host(app.homepage_url.as_deref()) { (host) " · " }
                        (used(view.app.last_used_at, view.now))
                    }
                }
            }
            @if living && view.decides { a.button.button-primary href={ (base) "/change" } { "Change" } }
        }
        @if !living {
            (notice(Tone::Plain, html! { p { strong { "This access has ended." } " The app can't do anything here. To install it again, begin at the app." } }))
        }
        div.columns {
            div {
                section.card aria-labelledby="may" {
                    h2 #may { @if living { "What it may do" } @else { "What it could do" } }
                    (scope_list(grant.scopes))
                    div {
                        h3 { "Personal data" }
                        p { @if grant.personal_data { "It sees the names, addresses and contacts of customers." } @else { "It does not see who your customers are." } }
                    }
                    div {
                        h3 { "Where" }
                        @match view.places {
                            None => p { "All locations." },
                            Some(places) => ul.plain-list { @for place in places { li { (place) } } },
                        }
                    }
                }
            }
            div {
                section.card aria-labelledby="facts" {
                    h2 #facts { "This access" }
                    dl.facts {
                        dt { "End" }
                        dd {
                            @match grant.expires_at { Some(end) => (time(end)), None => "none of its own" }
                            @if is_near { " " span.tag.tag-warn { "soon" } }
                            @if let Some(revoked_at) = grant.revoked_at { "; ended " (time(revoked_at)) }
                        }
                        dt { "Given" } dd { (time(grant.created_at)) }
                        @if grant.changed_at != grant.created_at { dt { "Last changed" } dd { (time(grant.changed_at)) } }
                        dt { "Consented by" } dd { (view.app.consented_by.as_deref().unwrap_or("the command line")) }
                    }
                }
                @if living && view.decides {
                    section.card aria-labelledby="end" {
                        h2 #end { "End this access" }
                        p.soft { "The app is locked out within a second, wherever it is signed in. What it has read already stays with it." }
                        (fold_danger("End access", html! {
                            p { "This can't be undone. To use " (app.name) " again you install it again." }
                            form method="post" action={ (base) "/end" } {
                                (view.form)
                                button.button.button-danger type="submit" { "End access now" }
                            }
                        }))
                    }
                }
                @if living && !view.decides {
                    p.small.soft { "An owner or manager of this shop can change or end it." }
                }
            }
        }
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

/// The host of a home page.
pub(crate) fn homepage_host(url: Option<&str>) -> Option<String> {
    let url = url::Url::parse(url?).ok()?;
    url.host_str().map(ToOwned::to_owned)
}

/// What the page that changes an app shows.
pub(crate) struct ChangeView<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its form carries.
    pub(crate) form: &'v FormToken,
    /// The app.
    pub(crate) app: &'v InstalledApp,
    /// The shop's locations.
    pub(crate) places: &'v [Place],
    /// What is ticked and chosen.
    pub(crate) chosen: &'v Chosen,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
    /// The present.
    pub(crate) now: Timestamp,
}

/// What is ticked and chosen.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// The scopes that stay.
    pub(crate) scopes: ScopeSet,
    /// Personal data.
    pub(crate) personal_data: bool,
    /// Certain locations; `None`: all.
    pub(crate) places: Option<Vec<LocationId>>,
    /// The name of the new term, or `unchanged`.
    pub(crate) end: String,
}

impl Chosen {
    /// The grant as it is.
    pub(crate) fn of(app: &InstalledApp) -> Self {
        Self {
            scopes: app.grant.scopes,
            personal_data: app.grant.personal_data,
            places: app.grant.locations.clone(),
            end: UNCHANGED.to_owned(),
        }
    }
}

/// The end stays as it is.
const UNCHANGED: &str = "unchanged";

/// The page that changes an app.
pub(crate) fn change_view(view: &ChangeView<'_>) -> Markup {
    let (app, grant) = (&view.app.app, &view.app.grant);
    let base = path(grant.merchant_id, grant.id);
    let has_personal_scope = grant
        .scopes
        .iter()
        .any(|scope| scope == Scope::OrdersPiiRead);
    let ends: Vec<EndChoice> = std::iter::once(EndChoice {
        name: UNCHANGED,
        words: "Leave as it is".to_owned(),
        ends_at: grant.expires_at,
    })
    .chain(Term::ALL.into_iter().map(|term| EndChoice {
        name: term.name(),
        words: term_words(term).to_owned(),
        ends_at: term.end(view.now),
    }))
    .collect();
    let content = html! {
        (back(&base, &app.name))
        (summary(view.faults))
        form.card.ask method="post" action={ (base) "/change" } {
            (view.form)
            input type="hidden" name="version" value=(grant.version);
            div.ask-part {
                h1 { "Change what " (app.name) " may do" }
                p.soft { "It is felt within a second. For more than this the app has to ask you." }
            }
            fieldset.ask-part #scopes {
                legend.hidden-visually { "What it may do" }
                h2 aria-hidden="true" { "What it may do" }
                @for (heading, scopes) in grouped(grant.scopes) {
                    @if !scopes.is_empty() {
                        div role="group" aria-label=(heading) {
                            h3 aria-hidden="true" { (heading) }
                            ul.choices { @for scope in scopes { li { (scope_choice(view, scope)) } } }
                        }
                    }
                }
            }
            @if has_personal_scope {
                fieldset.ask-part.ask-personal {
                    legend.hidden-visually { "Personal data" }
                    h2 aria-hidden="true" { "Personal data" }
                    p { "Without it the app sees what was ordered, and not by whom." }
                    div.choices {
                        @if view.app.required_scopes.allows(Scope::OrdersPiiRead) {
                            div.choice { (tick()) span { "See the names, addresses and contacts of customers " span.tag { "needed" } } }
                        } @else {
                            label.choice for="personal_data" {
                                input #personal_data type="checkbox" name="personal_data" value="yes" checked[view.chosen.personal_data];
                                span { "See the names, addresses and contacts of customers" }
                            }
                        }
                    }
                }
            }
            @if view.places.len() > 1 || view.chosen.places.is_some() {
                fieldset.ask-part.where {
                    legend.hidden-visually { "Where" }
                    h2 aria-hidden="true" { "Where" }
                    (place_choices(view.places, view.chosen.places.as_deref(), view.chosen.places.is_none(), view.faults))
                }
            }
            fieldset.ask-part {
                legend.hidden-visually { "Until when" }
                h2 aria-hidden="true" { "Until when" }
                ul.choices { @for end in &ends { li { (end_choice(end, view.chosen.end == end.name)) } } }
            }
            div.ask-part.ask-end {
                div.actions {
                    (submit("Save"))
                    a.button.button-plain href=(base) { "Cancel" }
                }
            }
        }
    };
    let title = format!("Change what {} may do", app.name);
    page(
        Page {
            title: &title,
            reader: Some(view.reader),
            width: Width::Middle,
            passkeys: false,
        },
        content,
    )
}

fn scope_choice(view: &ChangeView<'_>, scope: Scope) -> Markup {
    let id = format!("scope-{}", scope.name().replace([':', '.'], "-"));
    let words = html! {
        span {
            (scope_item(scope))
            @if view.app.required_scopes.allows(scope) { " " span.tag { "needed" } }
            @if is_far_reaching(scope) { span.hint { "This reaches far." } }
        }
    };
    html! {
        @if view.app.required_scopes.allows(scope) {
            div.choice { (tick()) (words) }
        } @else {
            label.choice for=(id) {
                input #(id) type="checkbox" name="scope" value=(scope) checked[view.chosen.scopes.iter().any(|chosen| chosen == scope)];
                (words)
            }
        }
    }
}

fn path(merchant: MerchantId, grant: GrantId) -> String {
    format!("/console/merchants/{merchant}/apps/{grant}")
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/merchants/{merchant}/apps/{grant}", get(show))
        .route(
            "/console/merchants/{merchant}/apps/{grant}/change",
            get(show_change).post(change),
        )
        .route("/console/merchants/{merchant}/apps/{grant}/end", post(end))
}

async fn show(
    State(console): State<Console>,
    signed: Signed,
    Path(path): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (merchant, grant) = ids(&path)?;
    let app = console
        .grants
        .installed_app(&signed.session, merchant, grant)
        .await?;
    let names = match &app.grant.locations {
        Some(ids) => Some(names_of(&places(&console, merchant).await?, ids)),
        None => None,
    };
    Ok(view(&View {
        reader: &signed.reader(Part::Merchant(merchant, MerchantTab::Apps)),
        form: &signed.form,
        app: &app,
        places: names.as_deref(),
        decides: signed.session.role_at(merchant)?.decides_grants(),
        now: console.clock.now(),
    })
    .into_response())
}

async fn show_change(
    State(console): State<Console>,
    signed: Signed,
    Path(path): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (merchant, grant) = ids(&path)?;
    let app = console
        .grants
        .installed_app(&signed.session, merchant, grant)
        .await?;
    if !signed.session.role_at(merchant)?.decides_grants() {
        return Err(Error::Forbidden(
            "Only an owner or a manager of this shop decides what apps may do.",
        )
        .into());
    }
    if !app.grant.is_living(console.clock.now()) {
        return Err(Error::Gone("grant").into());
    }
    // Giving more needs it, and what is ticked is not to be lost to it.
    require_recent_proof(&console, &signed)?;
    let chosen = Chosen::of(&app);
    Ok(change_page(&console, &signed, &app, &chosen, &Faults::NONE)
        .await?
        .into_response())
}

async fn change_page(
    console: &Console,
    signed: &Signed,
    app: &InstalledApp,
    chosen: &Chosen,
    faults: &Faults,
) -> Result<Markup, Failure> {
    let merchant = app.grant.merchant_id;
    Ok(change_view(&ChangeView {
        reader: &signed.reader(Part::Merchant(merchant, MerchantTab::Apps)),
        form: &signed.form,
        app,
        places: &places(console, merchant).await?,
        chosen,
        faults,
        now: console.clock.now(),
    }))
}

async fn change(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(ids_in_path): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let (merchant, grant) = ids(&ids_in_path)?;
    let version = form
        .get("version")
        .parse()
        .map_err(|_cause| Failure::Unreadable)?;
    let app = console
        .grants
        .installed_app(&signed.session, merchant, grant)
        .await?;
    let chosen = chosen(&form, &app)?;
    let term = match Term::of_name(&chosen.end) {
        None if chosen.end != UNCHANGED => return Err(Failure::Unreadable),
        term => term,
    };
    let change = GrantChange {
        scopes: chosen.scopes,
        locations: chosen.places.clone(),
        personal_data: chosen.personal_data,
        term,
    };
    let changed = console
        .grants
        .change(&caller, &signed.session, merchant, grant, version, change)
        .await;
    let (chosen, faults) = match changed {
        Ok(_) => return Ok(see_other(&path(merchant, grant))),
        Err(error @ Error::Changed(_)) => (Chosen::of(&app), faults_of(&error)),
        Err(error @ Error::InvalidFields(_)) => (chosen, faults_of(&error)),
        Err(error) => return Err(error.into()),
    };
    let page = change_page(
        &console,
        &signed,
        &app,
        &chosen,
        &faults.unwrap_or_default(),
    )
    .await?;
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

/// What was ticked and chosen; what is needed has no box.
fn chosen(form: &Form, app: &InstalledApp) -> Result<Chosen, Failure> {
    let ticked = form
        .all("scope")
        .map(str::parse)
        .collect::<Result<ScopeSet, _>>();
    let places = form
        .all("location")
        .map(str::parse)
        .collect::<Result<Vec<LocationId>, _>>();
    let (Ok(ticked), Ok(places)) = (ticked, places) else {
        return Err(Failure::Unreadable);
    };
    let needed = app
        .grant
        .scopes
        .iter()
        .filter(|&scope| app.required_scopes.allows(scope));
    let personal_data = form.has("personal_data")
        || app.required_scopes.allows(Scope::OrdersPiiRead) && app.grant.personal_data;
    let scopes = ticked
        .iter()
        .chain(needed)
        .filter(|&scope| scope != Scope::OrdersPiiRead || personal_data)
        .collect();
    // A shop with one location is not asked where.
    let places = match form.get("where") {
        "" => app.grant.locations.clone(),
        "some" => Some(places),
        _ => None,
    };
    Ok(Chosen {
        scopes,
        personal_data,
        places,
        end: form.get("end").to_owned(),
    })
}

async fn end(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(ids_in_path): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (merchant, grant) = ids(&ids_in_path)?;
    console
        .grants
        .end(&caller, &signed.session, merchant, grant)
        .await?;
    Ok(see_other(&path(merchant, grant)))
}
