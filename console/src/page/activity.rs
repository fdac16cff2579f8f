//! What has happened in a shop: its audit log, for its owners.

use std::collections::HashMap;

use auth::Error;
use axum::{
    Router,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use kernel::{
    audit::{self, AuditEntry, Filter, Log, Outcome},
    id::MerchantId,
    page::PageRequest,
};
use maud::{Markup, html};
use serde::Deserialize;

use crate::{
    Console,
    component::{capital, time},
    failure::Failure,
    layout::{MerchantTab, Page, Place, Reader, Width, page},
    session::Signed,
};

/// One entry, in words.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The entry.
    pub(crate) entry: AuditEntry,
    /// Who did it.
    pub(crate) who: String,
    /// The app that it is about, if it is about one.
    pub(crate) app: Option<String>,
}

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// The shop.
    pub(crate) merchant: MerchantId,
    /// The entries, the newest first.
    pub(crate) lines: &'v [Line],
    /// Whether the newest are among them.
    pub(crate) is_first: bool,
    /// Where older ones begin.
    pub(crate) next: Option<&'v str>,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let base = format!("/console/merchants/{}/activity", view.merchant);
    let content = html! {
        div.head {
            div {
                h1 { "Activity" }
                p { "What was done with access to this shop, by whom and from where. Nothing here can be changed or deleted." }
            }
        }
        @if view.lines.is_empty() {
            div.empty {
                h2 { "Nothing has happened yet" }
                p { "Once an app is installed or somebody joins the staff, it is written down here." }
            }
        } @else {
            div.table {
                table {
                    caption.hidden-visually { "Activity, the newest first" }
                    thead { tr { th scope="col" { "What" } th scope="col" { "Who" } th scope="col" { "When" } th scope="col" { "From where" } } }
                    tbody {
                        @for line in view.lines {
                            tr {
                                th scope="row" {
                                    (action_words(&line.entry.action))
                                    @if let Some(app) = &line.app { ": " (app) }
                                    @if line.entry.outcome == Outcome::Refused { " " span.tag.tag-fault { "refused" } }
                                }
                                td data-label="Who" { (line.who) }
                                td data-label="When" { (time(line.entry.occurred_at)) }
                                td data-label="From where" { (line.entry.address.as_deref().unwrap_or("this installation")) }
                            }
                        }
                    }
                }
            }
        }
        @if !view.is_first || view.next.is_some() {
            nav.actions aria-label="Pages" {
                @if !view.is_first { a.link href=(base) { "Newest" } }
                @if let Some(next) = view.next { a.link href={ (base) "?cursor=" (next) } { "Older" } }
            }
        }
    };
    page(
        Page {
            title: "Activity",
            reader: Some(view.reader),
            width: Width::Wide,
            passkeys: false,
        },
        content,
    )
}

/// What an act is called.
pub(crate) fn action_words(action: &str) -> String {
    let words = match action {
        "grant.consented" => "Access given",
        "grant.refused" => "Access refused",
        "grant.changed" => "Access changed",
        "grant.revoked" => "Access ended",
        "invitation.made" => "Invitation made",
        "invitation.accepted" => "Invitation accepted",
        "invitation.withdrawn" => "Invitation withdrawn",
        "membership.added" => "Staff added",
        "membership.changed" => "Role changed",
        "membership.removed" => "Staff removed",
        "authorization_code.reused" => "A code was used twice; its tokens were ended",
        "refresh_token.reused" => "A refresh token was used twice; its tokens were ended",
        "refresh_family.ended" => "Tokens ended",
        "webhook_secret.rotated" => "Webhook secret changed",
        other => return capital(&other.replace(['.', '_'], " ")),
    };
    words.to_owned()
}

/// Where older entries begin.
#[derive(Debug, Deserialize)]
struct Older {
    cursor: Option<String>,
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route("/console/merchants/{merchant}/activity", get(show))
}

async fn show(
    State(console): State<Console>,
    signed: Signed,
    Path(merchant): Path<String>,
    Query(older): Query<Older>,
) -> Result<Response, Failure> {
    let merchant: MerchantId = merchant.parse().map_err(|_cause| Failure::NoPage)?;
    if !signed.session.role_at(merchant)?.manages_staff() {
        return Err(Error::Forbidden("Only an owner of this shop reads its activity.").into());
    }
    let request = PageRequest::parse(None, older.cursor.as_deref())
        .map_err(|_problem| Failure::Unreadable)?;
    let mut tx = console
        .database
        .enter(merchant)
        .await
        .map_err(Failure::of_database)?;
    let entries = audit::list(
        &mut tx,
        Log::Merchant(merchant),
        &Filter::default(),
        &request,
    )
    .await
    .map_err(Failure::of_database)?;
    drop(tx);
    let staff = console.accounts.staff(&signed.session, merchant).await?;
    let people: HashMap<_, _> = staff
        .into_iter()
        .map(|member| (member.person, member.name))
        .collect();
    let installed = console.grants.installed(&signed.session, merchant).await?;
    let apps: HashMap<_, _> = installed
        .into_iter()
        .map(|installed| (installed.app.id, installed.app.name))
        .collect();
    let lines: Vec<Line> = entries
        .data
        .into_iter()
        .map(|entry| {
            let app =
                app_of(&entry).map(|id| apps.get(&id).cloned().unwrap_or_else(|| id.to_string()));
            let who = match entry.person_id {
                Some(person) => people
                    .get(&person)
                    .cloned()
                    .unwrap_or_else(|| "Somebody who is staff no longer".to_owned()),
                None if entry.app_id.is_some() => "The app".to_owned(),
                None => "The installation".to_owned(),
            };
            Line { entry, who, app }
        })
        .collect();
    Ok(view(&View {
        reader: &signed.reader(Place::Merchant(merchant, MerchantTab::Activity)),
        merchant,
        lines: &lines,
        is_first: older.cursor.is_none(),
        next: entries.next_cursor.as_deref(),
    })
    .into_response())
}

/// The app that an entry is about: who acted, or what its details name.
fn app_of(entry: &AuditEntry) -> Option<kernel::id::AppId> {
    entry.app_id.or_else(|| {
        let named = entry.details.get("appId")?;
        named.as_str()?.parse().ok()
    })
}
