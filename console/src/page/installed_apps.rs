//! The apps of a shop: what is installed, and what was until lately.

use std::time::Duration;

use auth::grant::{Term, installed::InstalledApp};
use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use kernel::{clock::Timestamp, id::MerchantId, scope::ScopeSet};
use maud::{Markup, html};

use crate::{
    Console,
    component::{day, days_ago, grouped, monogram},
    failure::Failure,
    layout::{MerchantTab, Page, Place, Reader, Width, page},
    session::Signed,
};

/// From when on an end is near.
pub(crate) const NEAR: Duration = Duration::from_hours(7 * 24);

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// The shop.
    pub(crate) merchant: MerchantId,
    /// Its apps: those that live first.
    pub(crate) apps: &'v [InstalledApp],
    /// The present.
    pub(crate) now: Timestamp,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let (living, ended): (Vec<_>, Vec<_>) = view
        .apps
        .iter()
        .partition(|app| app.grant.is_living(view.now));
    let content = html! {
        div.head {
            div {
                h1 { "Apps" }
                p { "What has access to this shop, and what each may do." }
            }
        }
        @if living.is_empty() {
            div.empty {
                h2 { "No app has access" }
                p { "An app asks for access when you install it from its own site. You decide here what it gets, and until when." }
            }
        } @else {
            (rows(view, &living))
        }
        @if !ended.is_empty() {
            section.stack aria-labelledby="ended" {
                h2 #ended { "Ended in the last 30 days" }
                (rows(view, &ended))
            }
        }
    };
    page(
        Page {
            title: "Apps",
            reader: Some(view.reader),
            width: Width::Wide,
            passkeys: false,
        },
        content,
    )
}

fn rows(view: &View<'_>, apps: &[&InstalledApp]) -> Markup {
    html! {
        ul.rows {
            @for app in apps {
                li {
                    a.row href={ "/console/merchants/" (view.merchant) "/apps/" (app.grant.id) } {
                        (monogram(&app.app.name, true))
                        span.row-main {
                            span.row-title { (app.app.name) }
                            br;
                            span.small.soft { (gist(app.grant.scopes, app.grant.personal_data, app.grant.locations.as_ref().map(Vec::len))) }
                        }
                        span.row-end.small.soft {
                            span { (used(app.last_used_at, view.now)) }
                            (end_tag(app, view.now))
                        }
                    }
                }
            }
        }
    }
}

/// What a grant comes to, in a line.
fn gist(scopes: ScopeSet, personal_data: bool, places: Option<usize>) -> String {
    let [(_, sees), (_, changes)] = grouped(scopes);
    let mut parts = Vec::new();
    match (sees.len(), changes.len()) {
        (0, changes) => parts.push(format!("changes {}", things(changes))),
        (sees, 0) => parts.push(format!("sees {}, changes nothing", things(sees))),
        (sees, changes) => parts.push(format!(
            "sees {}, changes {}",
            things(sees),
            things(changes)
        )),
    }
    if personal_data {
        parts.push("personal data".to_owned());
    }
    match places {
        None => {}
        Some(1) => parts.push("one location".to_owned()),
        Some(places) => parts.push(format!("{places} locations")),
    }
    let text = parts.join(" · ");
    crate::component::capital(&text)
}

fn things(count: usize) -> String {
    if count == 1 {
        "one thing".to_owned()
    } else {
        format!("{count} things")
    }
}

/// When it was last used, in words.
pub(crate) fn used(last_used_at: Option<Timestamp>, now: Timestamp) -> String {
    last_used_at.map_or_else(
        || "Not used yet".to_owned(),
        |at| format!("Used {}", days_ago(at, now)),
    )
}

/// When it ends or has ended.
pub(crate) fn end_tag(app: &InstalledApp, now: Timestamp) -> Markup {
    let grant = &app.grant;
    html! {
        @if let Some(revoked_at) = grant.revoked_at {
            span.tag { "ended " (day(revoked_at)) }
        } @else if let Some(end) = grant.expires_at {
            @if end <= now { span.tag { "ran out " (day(end)) } }
            @else if end.since(now) <= NEAR { span.tag.tag-warn { "ends " (day(end)) } }
            @else { span.tag { "ends " (day(end)) } }
        } @else {
            span.tag { "until you end it" }
        }
    }
}

/// What a term is called where a grant is changed.
pub(crate) const fn term_words(term: Term) -> &'static str {
    match term {
        Term::Day => "A day from now",
        Term::Week => "A week from now",
        Term::Month => "A month from now",
        Term::Year => "A year from now",
        Term::UntilRevoked => "Until I end it",
    }
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route("/console/merchants/{merchant}/apps", get(show))
}

async fn show(
    State(console): State<Console>,
    signed: Signed,
    Path(merchant): Path<String>,
) -> Result<Response, Failure> {
    let merchant = merchant.parse().map_err(|_cause| Failure::NoPage)?;
    let apps = console.grants.installed(&signed.session, merchant).await?;
    Ok(view(&View {
        reader: &signed.reader(Place::Merchant(merchant, MerchantTab::Apps)),
        merchant,
        apps: &apps,
        now: console.clock.now(),
    })
    .into_response())
}
