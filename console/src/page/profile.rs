//! One's own name, and what one may do where.

use auth::{
    Error,
    account::{Membership, Person},
};
use axum::{
    Extension, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use kernel::caller::Caller;
use maud::{Markup, html};

use crate::{
    Console,
    component::{Faults, Field, day, faults_of, monogram, submit, summary},
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{AccountTab, Page, Place, Reader, Width, page, role_words},
    session::{Signed, see_other},
};

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its form carries.
    pub(crate) form: &'v FormToken,
    /// The person.
    pub(crate) person: &'v Person,
    /// The name, as it was typed.
    pub(crate) name: &'v str,
    /// Where they are staff.
    pub(crate) memberships: &'v [Membership],
    /// What was wrong.
    pub(crate) faults: &'v Faults,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let person = view.person;
    let content = html! {
        div.head { div { h1 { "Profile" } p { "How others see you in the console." } } }
        div.grid {
            section.card aria-labelledby="you" {
                h2 #you { "You" }
                (summary(view.faults))
                form.stack method="post" action="/console/account" {
                    (view.form)
                    (Field { name: "name", label: "Name", autocomplete: "name", value: view.name, ..Field::default() }.render(view.faults))
                    (submit("Save"))
                }
                dl.facts {
                    dt { "Login" } dd { (person.login) }
                    dt { "Here since" } dd { (day(person.created_at)) }
                    @if person.is_operator { dt { "Operator" } dd { "You run this installation." } }
                    @if person.is_developer { dt { "Developer" } dd { "You can make apps." } }
                }
            }
            section.stack aria-labelledby="shops" {
                h2 #shops { "Your shops" }
                @if view.memberships.is_empty() {
                    p.soft { "None. An owner of a shop can invite you by a link." }
                } @else {
                    ul.rows {
                        @for membership in view.memberships {
                            li {
                                a.row href={ "/console/merchants/" (membership.merchant) "/apps" } {
                                    (monogram(&membership.merchant_name, true))
                                    span.row-main { span.row-title { (membership.merchant_name) } br; span.small.soft { "You are " (role_words(membership.role).0.to_lowercase()) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    page(
        Page {
            title: "Profile",
            reader: Some(view.reader),
            width: Width::Wide,
            passkeys: false,
        },
        content,
    )
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route("/console/account", get(show).post(rename))
}

async fn show(signed: Signed) -> Response {
    let name = signed.session.person.name.clone();
    render(&signed, &name, &Faults::NONE).into_response()
}

fn render(signed: &Signed, name: &str, faults: &Faults) -> Markup {
    view(&View {
        reader: &signed.reader(Place::Account(AccountTab::Profile)),
        form: &signed.form,
        person: &signed.session.person,
        name,
        memberships: &signed.session.memberships,
        faults,
    })
}

async fn rename(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let name = form.get("name").trim();
    match console
        .accounts
        .set_name(&caller, &signed.session, name)
        .await
    {
        Ok(()) => Ok(see_other("/console/account")),
        Err(error @ Error::InvalidFields(_)) => {
            let page = render(&signed, name, &faults_of(&error).unwrap_or_default());
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(error) => Err(error.into()),
    }
}
