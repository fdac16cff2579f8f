//! The merchants of the installation, for operators.

use auth::merchant::{self, Merchant};
use axum::{
    Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use kernel::page::PageRequest;
use maud::{Markup, html};
use serde::Deserialize;

use super::people::require_operator;
use crate::{
    Console,
    component::{day, monogram},
    failure::Failure,
    layout::{OperatorTab, Page, Place, Reader, Width, page},
    session::Signed,
};

const PATH: &str = "/console/operator/merchants";

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// The merchants.
    pub(crate) merchants: &'v [Merchant],
    /// Where the next begin.
    pub(crate) next: Option<&'v str>,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let content = html! {
        div.head { div { h1 { "Merchants" } p { "Every shop of this installation. New ones, and their first owner's invitation, are made by the command line." } } }
        @if view.merchants.is_empty() {
            div.empty {
                h2 { "No merchant yet" }
                p { "Make one on the server: " code.code { "stoa merchant create --name …" } }
            }
        } @else {
            ul.rows {
                @for merchant in view.merchants {
                    li {
                        div.row {
                            (monogram(&merchant.name, true))
                            span.row-main { span.row-title { (merchant.name) } br; code.code.small.soft { (merchant.id) } }
                            span.row-end.small.soft { "since " (day(merchant.created_at)) }
                        }
                    }
                }
            }
        }
        @if let Some(next) = view.next { p { a.link href={ (PATH) "?cursor=" (next) } { "More" } } }
    };
    page(
        Page {
            title: "Merchants",
            reader: Some(view.reader),
            width: Width::Wide,
            passkeys: false,
        },
        content,
    )
}

#[derive(Debug, Deserialize)]
struct After {
    cursor: Option<String>,
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route(PATH, get(show))
}

async fn show(
    State(console): State<Console>,
    signed: Signed,
    Query(after): Query<After>,
) -> Result<Response, Failure> {
    require_operator(&signed)?;
    let request = PageRequest::parse(None, after.cursor.as_deref())
        .map_err(|_problem| Failure::Unreadable)?;
    let mut tx = console
        .database
        .begin()
        .await
        .map_err(Failure::of_database)?;
    let merchants = merchant::list(&mut tx, &request).await?;
    Ok(view(&View {
        reader: &signed.reader(Place::Operator(OperatorTab::Merchants)),
        merchants: &merchants.data,
        next: merchants.next_cursor.as_deref(),
    })
    .into_response())
}
