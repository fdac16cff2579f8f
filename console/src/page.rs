//! The pages, a file each: what it shows, how that looks, and the handlers that answer with it.

pub(crate) mod activity;
pub(crate) mod consent;
pub(crate) mod developer_app;
pub(crate) mod developer_apps;
pub(crate) mod failure;
pub(crate) mod installed_app;
pub(crate) mod installed_apps;
pub(crate) mod invitation;
pub(crate) mod merchants;
pub(crate) mod people;
pub(crate) mod profile;
pub(crate) mod second_factor;
pub(crate) mod security;
pub(crate) mod sessions;
pub(crate) mod sign_in;
pub(crate) mod sign_out;
pub(crate) mod staff;
pub(crate) mod step_up;
pub(crate) mod totp;
pub(crate) mod upstream;

use axum::{Router, extract::State, http::HeaderMap, response::Response, routing::get};
use kernel::id::{Id, Kind};

use crate::{
    Console,
    failure::Failure,
    layout::home,
    session::{current, see_other},
};

/// Every page.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/console", get(beginning))
        .route("/console/", get(beginning))
        .route("/console/{*rest}", get(no_page).post(no_page))
        .merge(activity::routes())
        .merge(consent::routes())
        .merge(developer_app::routes())
        .merge(developer_apps::routes())
        .merge(installed_app::routes())
        .merge(installed_apps::routes())
        .merge(invitation::routes())
        .merge(merchants::routes())
        .merge(people::routes())
        .merge(profile::routes())
        .merge(second_factor::routes())
        .merge(security::routes())
        .merge(sessions::routes())
        .merge(sign_in::routes())
        .merge(sign_out::routes())
        .merge(staff::routes())
        .merge(step_up::routes())
        .merge(totp::routes())
        .merge(upstream::routes())
}

/// The first page that whoever asks has a use for.
async fn beginning(
    State(console): State<Console>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Some(session) = current(&console, &headers).await? else {
        return Ok(see_other("/console/sign-in"));
    };
    let person = &session.person;
    Ok(see_other(&home(
        &session.memberships,
        person.is_developer,
        person.is_operator,
    )))
}

async fn no_page() -> Failure {
    Failure::NoPage
}

/// The two ids of a path, such as a merchant's and that of something of theirs; where one is none, there is no page.
fn ids<A: Kind, B: Kind>((first, second): &(String, String)) -> Result<(Id<A>, Id<B>), Failure> {
    match (first.parse(), second.parse()) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        _ => Err(Failure::NoPage),
    }
}
