//! A logistics app, as somebody else would write it: merchants install it, it ships their orders and says how to follow them, for as long as they let it.
//!
//! It knows Stoa's public API alone. [`install`] asks a merchant by an authorization code with PKCE; [`access`] keeps what came of that, refreshes it, and notices
//! when it ends. An app of several processes would keep both in its database; here it is a file for each merchant and a lock beside it.
//!
//! Register it once, with the address at which browsers reach it, then start it:
//!
//! ```sh
//! stoa app create --name "Parcel Desk" --redirect-uri http://127.0.0.1:9100/callback
//! export STOA_URL=http://127.0.0.1:8080 STOA_CLIENT_ID=app_… STOA_CLIENT_SECRET=stoa_secret_…
//! cargo run -p gateway --example logistics_app -- 127.0.0.1:9100 installs
//! ```
//!
//! and open <http://127.0.0.1:9100/>. Whoever reaches the port may use what was installed: a real app has users of its own, and asks who they are.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program's user is at a terminal"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "this program is not the gateway, and has a configuration and a clock of its own"
)]
#![allow(
    clippy::indexing_slicing,
    reason = "what a JSON value does not have is null"
)]

mod access;
mod failure;
mod install;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{Html, Redirect},
    routing::{get, post},
};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use access::{Access, Merchant};
use failure::{Failure, Result};
use install::Installing;

/// What the app asks merchants for: the orders, shipping them, and where they go. Each is for the merchant to grant.
const SCOPE: &str = "orders:read orders.pii:read fulfillments:write";

/// How long Stoa may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The app, and the server whose app it is.
struct App {
    http: reqwest::Client,
    stoa: Stoa,
    /// Where browsers are answered.
    redirect_uri: String,
    access: Access,
    installing: Installing,
}

/// Where the server is, and who we are there.
struct Stoa {
    url: String,
    client_id: String,
    client_secret: String,
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err("usage: logistics_app ADDRESS DIRECTORY".into());
    };
    let listener = TcpListener::bind(address).await?;
    let own_url = std::env::var("APP_URL")
        .or_else(|_unset| Ok::<_, std::io::Error>(format!("http://{}", listener.local_addr()?)))?;
    // Redirects would carry secrets to wherever an answer says.
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ANSWER_TIMEOUT)
        .build()?;
    let app = Arc::new(App {
        http,
        stoa: Stoa {
            url: std::env::var("STOA_URL")?.trim_end_matches('/').to_owned(),
            client_id: std::env::var("STOA_CLIENT_ID")?,
            client_secret: std::env::var("STOA_CLIENT_SECRET")?,
        },
        redirect_uri: format!("{own_url}/callback"),
        access: Access::open(PathBuf::from(directory))?,
        installing: Installing::default(),
    });
    println!("listening on http://{}/", listener.local_addr()?);
    let router = Router::new()
        .route("/", get(home))
        .route("/install", get(install::begin))
        .route("/callback", get(install::finish))
        .route("/merchants/{merchant}", get(show))
        .route("/merchants/{merchant}/refresh", post(refresh))
        .route("/merchants/{merchant}/uninstall", post(uninstall))
        .route("/merchants/{merchant}/orders", get(orders))
        .route("/merchants/{merchant}/orders/{order}/ship", post(ship))
        .with_state(app);
    Ok(axum::serve(listener, router).await?)
}

/// Who has installed the app.
async fn home(State(app): State<Arc<App>>) -> Result<Html<String>> {
    let row = |merchant: &Merchant| {
        // Ids are letters, digits and an underscore: nothing to escape.
        format!(
            "<li><a href=\"/merchants/{merchant}\">{merchant}</a> · <a href=\"/merchants/{merchant}/orders\">orders to ship</a></li>"
        )
    };
    let rows: String = app.access.merchants()?.iter().map(row).collect();
    Ok(Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Parcel Desk</title>\
         <h1>Parcel Desk</h1><ul>{rows}</ul><p><a href=\"/install\">Install for a merchant</a></p>"
    )))
}

/// What a merchant allows the app, and until when.
async fn show(State(app): State<Arc<App>>, Path(merchant): Path<Merchant>) -> Result<Json<Value>> {
    Ok(Json(app.access.read(&merchant)?.shown()))
}

/// Asks the server again what the merchant allows, without waiting for the token's end.
async fn refresh(
    State(app): State<Arc<App>>,
    Path(merchant): Path<Merchant>,
) -> Result<Json<Value>> {
    Ok(Json(app.refreshed(&merchant, |_| true).await?.shown()))
}

/// Gives back what the merchant allowed.
async fn uninstall(
    State(app): State<Arc<App>>,
    Path(merchant): Path<Merchant>,
) -> Result<Redirect> {
    app.give_back(&merchant).await?;
    Ok(Redirect::to("/"))
}

/// Orders with something left to ship.
async fn orders(
    State(app): State<Arc<App>>,
    Path(merchant): Path<Merchant>,
) -> Result<Json<Value>> {
    let mut to_ship = Vec::new();
    for status in ["placed", "partially_fulfilled"] {
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/orders?status={status}&limit=250{cursor}");
            let page = app.call(&merchant, Method::GET, &path, None).await?;
            to_ship.extend(page["data"].as_array().into_iter().flatten().cloned());
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    }
    Ok(Json(json!({"orders": to_ship})))
}

/// A parcel that was handed to a carrier.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parcel {
    carrier: String,
    tracking_number: String,
}

/// Ships all that is left of an order, then says how to follow it. Sent again, it changes nothing: the keys are the order's and the parcel's.
async fn ship(
    State(app): State<Arc<App>>,
    Path((merchant, order)): Path<(Merchant, String)>,
    Json(parcel): Json<Parcel>,
) -> Result<Json<Value>> {
    if !order.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Failure::NotFound);
    }
    let Parcel {
        carrier,
        tracking_number,
    } = parcel;
    let key = format!("ship-{order}-{tracking_number}");
    let path = format!("/v1/orders/{order}/fulfillments");
    let shipped = app
        .call(&merchant, Method::POST, &path, Some((&key, json!({}))))
        .await?;
    let mut followed = Vec::new();
    for fulfillment in shipped["fulfillments"].as_array().into_iter().flatten() {
        let id = fulfillment["id"].as_str().unwrap_or_default();
        let tracking = json!({"carrier": carrier, "trackingNumber": tracking_number});
        let (path, key) = (
            format!("/v1/fulfillments/{id}"),
            format!("track-{key}-{id}"),
        );
        followed.push(
            app.call(&merchant, Method::PATCH, &path, Some((&key, tracking)))
                .await?,
        );
    }
    Ok(Json(json!({"fulfillments": followed})))
}
