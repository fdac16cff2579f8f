//! Signing out.

use axum::{Extension, Router, extract::State, response::Response, routing::post};
use kernel::caller::Caller;

use crate::{
    Console,
    cookie::{self, Name},
    failure::Failure,
    session::{Signed, see_other},
};

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route("/console/sign-out", post(submit))
}

async fn submit(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
) -> Result<Response, Failure> {
    console.accounts.sign_out(&caller, &signed.session).await?;
    let mut response = see_other("/console/sign-in");
    cookie::append(
        response.headers_mut(),
        console.cookies().clear(Name::Session),
    );
    Ok(response)
}
