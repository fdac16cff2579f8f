//! Everybody who signs in here, for operators.

use auth::account::{
    invitation::{Invitation, InvitationId, Invited},
    person::{By, ListedPerson},
};
use axum::{
    Extension, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kernel::{caller::Caller, id::PersonId, page::PageRequest};
use maud::{Markup, html};
use serde::Deserialize;

use super::staff::{invitation_row, invited_view};
use crate::{
    Console,
    component::{day, fold, monogram, submit},
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{OperatorTab, Page, Place, Reader, Width, page},
    session::{Signed, require_recent_proof, see_other},
};

const PATH: &str = "/console/operator/people";

const PLACE: Place = Place::Operator(OperatorTab::People);

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// The reader.
    pub(crate) person: PersonId,
    /// The people.
    pub(crate) people: &'v [ListedPerson],
    /// The open invitations.
    pub(crate) invitations: &'v [Invitation],
    /// Where the next begin.
    pub(crate) next: Option<&'v str>,
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let content = html! {
        div.head {
            div { h1 { "People" } p { "Everybody who can sign in to this installation. Staff of shops are invited by the owners there." } }
            a.button.button-primary href={ (PATH) "/invite" } { "Invite somebody" }
        }
        ul.rows { @for listed in view.people { li { (row(view, listed)) } } }
        @if let Some(next) = view.next { p { a.link href={ (PATH) "?cursor=" (next) } { "More" } } }
        section.stack aria-labelledby="invited" {
            h2 #invited { "Open invitations of operators and developers" }
            @if view.invitations.is_empty() { p.soft { "None." } }
            @else { ul.rows { @for invitation in view.invitations { li { (invitation_row(invitation, view.form, &format!("{PATH}/withdraw"))) } } } }
        }
    };
    page(
        Page {
            title: "People",
            reader: Some(view.reader),
            width: Width::Wide,
            passkeys: false,
        },
        content,
    )
}

fn row(view: &View<'_>, listed: &ListedPerson) -> Markup {
    let person = &listed.person;
    let is_disabled = listed.disabled_at.is_some();
    html! {
        div.row {
            (monogram(&person.name, true))
            span.row-main {
                span.row-title { (person.name) }
                br;
                span.small.soft { (person.login) " · since " (day(person.created_at)) " · " (shops(listed.merchants)) }
            }
            div.row-end {
                @if person.is_operator { span.tag { "operator" } }
                @if person.is_developer { span.tag { "developer" } }
                @if is_disabled { span.tag.tag-fault { "locked out" } }
                @if person.id == view.person { span.tag.tag-accent { "you" } }
                @else {
                    (fold(if is_disabled { "Let in again" } else { "Lock out" }, html! {
                        p { @if is_disabled { (person.name) " can then sign in again." } @else { (person.name) " is signed out everywhere at once and can't sign in. What they gave apps stays." } }
                        form method="post" action={ (PATH) @if is_disabled { "/enable" } @else { "/disable" } } {
                            (view.form)
                            input type="hidden" name="person" value=(person.id);
                            @if is_disabled { button.button.button-plain type="submit" { "Let " (person.name) " in" } }
                            @else { button.button.button-danger type="submit" { "Lock " (person.name) " out" } }
                        }
                    }))
                }
            }
        }
    }
}

fn shops(count: i64) -> String {
    match count {
        0 => "no shop".to_owned(),
        1 => "one shop".to_owned(),
        count => format!("{count} shops"),
    }
}

/// The page that invites.
pub(crate) fn invite_view(reader: &Reader, form: &FormToken) -> Markup {
    let content = html! {
        (crate::component::back(PATH, "People"))
        div.card {
            h1 { "Invite somebody" }
            p.soft { "You get a link to hand over yourself. It is good once, and for seven days." }
            form.stack method="post" action={ (PATH) "/invite" } {
                (form)
                (crate::component::Field { name: "label", label: "Who is it for?", focused: true, ..crate::component::Field::default() }
                    .render(&crate::component::Faults::NONE))
                fieldset {
                    legend.legend { "As what?" }
                    ul.choices {
                        li {
                            label.choice for="as-developer" {
                                input #as-developer type="radio" name="as" value="developer" checked required;
                                span { "Developer" span.hint { "makes apps that merchants can install" } }
                            }
                        }
                        li {
                            label.choice for="as-operator" {
                                input #as-operator type="radio" name="as" value="operator" required;
                                span { "Operator" span.hint { "sees all merchants and people, and invites others" } }
                            }
                        }
                    }
                }
                div.actions { (submit("Make the link")) a.button.button-plain href=(PATH) { "Cancel" } }
            }
        }
    };
    page(
        Page {
            title: "Invite somebody",
            reader: Some(reader),
            width: Width::Middle,
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
    Router::new()
        .route(PATH, get(show))
        .route(
            "/console/operator/people/invite",
            get(show_invite).post(invite),
        )
        .route("/console/operator/people/withdraw", post(withdraw))
        .route("/console/operator/people/disable", post(disable))
        .route("/console/operator/people/enable", post(enable))
}

async fn show(
    State(console): State<Console>,
    signed: Signed,
    Query(after): Query<After>,
) -> Result<Response, Failure> {
    let request = PageRequest::parse(None, after.cursor.as_deref())
        .map_err(|_problem| Failure::Unreadable)?;
    let accounts = &console.accounts;
    let people = accounts
        .persons(By::Person(&signed.session), &request)
        .await?;
    let invitations = accounts.invitations(&signed.session).await?;
    Ok(view(&View {
        reader: &signed.reader(PLACE),
        form: &signed.form,
        person: signed.session.person.id,
        people: &people.data,
        invitations: &invitations,
        next: people.next_cursor.as_deref(),
    })
    .into_response())
}

async fn show_invite(State(console): State<Console>, signed: Signed) -> Result<Response, Failure> {
    require_operator(&signed)?;
    require_recent_proof(&console, &signed)?;
    Ok(invite_view(&signed.reader(PLACE), &signed.form).into_response())
}

/// Nothing for operators, or else a page that says so.
pub(crate) fn require_operator(signed: &Signed) -> Result<(), Failure> {
    if signed.session.person.is_operator {
        Ok(())
    } else {
        Err(auth::Error::Forbidden("Only operators of this installation see this.").into())
    }
}

async fn invite(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let invited = match form.get("as") {
        "operator" => Invited::Operator,
        "developer" => Invited::Developer,
        _ => return Err(Failure::Unreadable),
    };
    let label = Some(form.get("label").trim()).filter(|label| !label.is_empty());
    let by = By::Person(&signed.session);
    let (invitation, token) = console.accounts.invite(&caller, by, invited, label).await?;
    let link = super::invitation::link(&console, token.expose());
    Ok(invited_view(&signed.reader(PLACE), &invitation, &link, (PATH, "People")).into_response())
}

async fn withdraw(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let id: InvitationId = form
        .get("invitation")
        .parse()
        .map_err(|_cause| Failure::Unreadable)?;
    console
        .accounts
        .withdraw_invitation(&caller, &signed.session, id)
        .await?;
    Ok(see_other(PATH))
}

fn person_of(form: &Form) -> Result<PersonId, Failure> {
    form.get("person")
        .parse()
        .map_err(|_cause| Failure::Unreadable)
}

async fn disable(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let by = By::Person(&signed.session);
    let person = person_of(&form)?;
    console.accounts.disable_person(&caller, by, person).await?;
    Ok(see_other(PATH))
}

async fn enable(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    form: Form,
) -> Result<Response, Failure> {
    let by = By::Person(&signed.session);
    let person = person_of(&form)?;
    console.accounts.enable_person(&caller, by, person).await?;
    Ok(see_other(PATH))
}
