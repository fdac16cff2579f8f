//! The staff of a shop, for its owners: who works there, who is invited, and what each may do.

use auth::{
    Error,
    account::{
        Role,
        invitation::{Invitation, InvitationId, Invited},
        membership::Staff,
        person::By,
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
    id::{MerchantId, PersonId},
};
use maud::{Markup, html};

use super::ids;
use crate::{
    Console,
    component::{
        Faults, Field, back, day, faults_of, fold_danger, monogram, submit, summary, time,
    },
    csrf::{Form, FormToken},
    failure::Failure,
    layout::{MerchantTab, Page, Place, Reader, Width, page, role_words},
    session::{Signed, require_recent_proof, see_other},
};

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// The shop.
    pub(crate) merchant: MerchantId,
    /// The reader.
    pub(crate) person: PersonId,
    /// The staff.
    pub(crate) staff: &'v [Staff],
    /// The open invitations.
    pub(crate) invitations: &'v [Invitation],
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let base = format!("/console/merchants/{}/staff", view.merchant);
    let content = html! {
        div.head {
            div {
                h1 { "Staff" }
                p { "Who may decide what, for this shop." }
            }
            a.button.button-primary href={ (base) "/invite" } { "Invite somebody" }
        }
        ul.rows {
            @for member in view.staff {
                li {
                    a.row href={ (base) "/" (member.person) } {
                        (monogram(&member.name, true))
                        span.row-main {
                            span.row-title { (member.name) }
                            @if member.person == view.person { " " span.tag { "you" } }
                            br;
                            span.small.soft { (member.login) }
                        }
                        span.row-end.small.soft {
                            span { "since " (day(member.created_at)) }
                            @if member.is_disabled { span.tag.tag-fault { "locked out" } }
                            span.tag { (role_words(member.role).0) }
                        }
                    }
                }
            }
        }
        section.stack aria-labelledby="invited" {
            h2 #invited { "Open invitations" }
            @if view.invitations.is_empty() {
                p.soft { "None. A link that you have handed over and that was used is gone from here." }
            } @else {
                ul.rows { @for invitation in view.invitations { li { (invitation_row(invitation, view.form, &format!("{base}/withdraw"))) } } }
            }
        }
    };
    page(
        Page {
            title: "Staff",
            reader: Some(view.reader),
            width: Width::Wide,
            passkeys: false,
        },
        content,
    )
}

/// An open invitation, with the form that withdraws it.
pub(crate) fn invitation_row(invitation: &Invitation, form: &FormToken, action: &str) -> Markup {
    let role = match invitation.invited {
        Invited::Staff { role, .. } => role_words(role).0,
        Invited::Operator => "Operator",
        Invited::Developer => "Developer",
    };
    let label = invitation.label.as_deref().unwrap_or("Nobody named");
    html! {
        div.row {
            span.row-main {
                span.row-title { (label) }
                br;
                span.small.soft { "The link ends " (time(invitation.expires_at)) }
            }
            div.row-end {
                span.tag { (role) }
                form method="post" action=(action) {
                    (form)
                    input type="hidden" name="invitation" value=(invitation.id);
                    button.link.link-danger type="submit" { "Withdraw" span.hidden-visually { " the invitation of " (label) } }
                }
            }
        }
    }
}

/// What the page that invites shows.
pub(crate) struct InviteView<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its form carries.
    pub(crate) form: &'v FormToken,
    /// The shop.
    pub(crate) merchant: MerchantId,
    /// For whom it is.
    pub(crate) label: &'v str,
    /// As what.
    pub(crate) role: Role,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
}

/// The page that invites.
pub(crate) fn invite_view(view: &InviteView<'_>) -> Markup {
    let base = format!("/console/merchants/{}/staff", view.merchant);
    let content = html! {
        (back(&base, "Staff"))
        div.card {
            h1 { "Invite somebody" }
            p.soft { "You get a link to hand over yourself. Whoever opens it first joins this shop, so give it to that person alone. It is good once, and for seven days." }
            (summary(view.faults))
            form.stack method="post" action={ (base) "/invite" } {
                (view.form)
                (Field { name: "label", label: "Who is it for?", hint: Some("To find it again in the list. It is shown to whoever opens the link."),
                    value: view.label, focused: true, ..Field::default() }.render(view.faults))
                (role_choices("What may they do?", view.role))
                div.actions {
                    (submit("Make the link"))
                    a.button.button-plain href=(base) { "Cancel" }
                }
            }
        }
    };
    page(
        Page {
            title: "Invite somebody",
            reader: Some(view.reader),
            width: Width::Middle,
            passkeys: false,
        },
        content,
    )
}

fn role_choices(legend: &str, chosen: Role) -> Markup {
    html! {
        fieldset {
            legend.legend { (legend) }
            ul.choices {
                @for role in Role::ALL {
                    li {
                        label.choice for={ "role-" (role.name()) } {
                            input id={ "role-" (role.name()) } type="radio" name="role" value=(role.name()) checked[role == chosen] required;
                            span { (role_words(role).0) span.hint { (role_words(role).1) } }
                        }
                    }
                }
            }
        }
    }
}

/// The link of an invitation, shown this once.
pub(crate) fn invited_view(
    reader: &Reader,
    invitation: &Invitation,
    link: &str,
    back_to: (&str, &str),
) -> Markup {
    let label = invitation.label.as_deref().unwrap_or("that person");
    let content = html! {
        (back(back_to.0, back_to.1))
        div.card {
            h1 { "Hand over this link" }
            p { "It is shown this once. Give it to " strong { (label) } " yourself, by a way that nobody else reads." }
            code.once { (link) }
            p.soft { "It is good once, and ends " (time(invitation.expires_at)) "." }
        }
    };
    page(
        Page {
            title: "Hand over this link",
            reader: Some(reader),
            width: Width::Middle,
            passkeys: false,
        },
        content,
    )
}

/// What the page of one of the staff shows.
pub(crate) struct MemberView<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// The shop.
    pub(crate) merchant: MerchantId,
    /// Of whom it is.
    pub(crate) member: &'v Staff,
    /// Whether that is the reader.
    pub(crate) is_self: bool,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
}

/// The page of one of the staff.
pub(crate) fn member_view(view: &MemberView<'_>) -> Markup {
    let base = format!("/console/merchants/{}/staff", view.merchant);
    let member = view.member;
    let content = html! {
        (back(&base, "Staff"))
        div.card {
            div.who {
                (monogram(&member.name, false))
                div {
                    h1 { (member.name) }
                    p.soft { (member.login) " · here since " (day(member.created_at)) }
                }
            }
            (summary(view.faults))
            form.stack method="post" action={ (base) "/" (member.person) } {
                (view.form)
                (role_choices("What may they do?", member.role))
                (submit("Save"))
            }
            hr;
            (fold_danger(if view.is_self { "Leave this shop" } else { "Remove from this shop" }, html! {
                p {
                    @if view.is_self { "You will see nothing of this shop any more. " } @else { (member.name) " will see nothing of this shop any more. " }
                    "What they have installed stays installed."
                }
                form method="post" action={ (base) "/" (member.person) "/remove" } {
                    (view.form)
                    button.button.button-danger type="submit" { @if view.is_self { "Leave" } @else { "Remove" } }
                }
            }))
        }
    };
    page(
        Page {
            title: &member.name,
            reader: Some(view.reader),
            width: Width::Middle,
            passkeys: false,
        },
        content,
    )
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/merchants/{merchant}/staff", get(show))
        .route(
            "/console/merchants/{merchant}/staff/invite",
            get(show_invite).post(invite),
        )
        .route(
            "/console/merchants/{merchant}/staff/withdraw",
            post(withdraw),
        )
        .route(
            "/console/merchants/{merchant}/staff/{person}",
            get(show_member).post(change_role),
        )
        .route(
            "/console/merchants/{merchant}/staff/{person}/remove",
            post(remove),
        )
}

fn merchant_id(text: &str) -> Result<MerchantId, Failure> {
    text.parse().map_err(|_cause| Failure::NoPage)
}

fn part(merchant: MerchantId) -> Place {
    Place::Merchant(merchant, MerchantTab::Staff)
}

fn list(merchant: MerchantId) -> String {
    format!("/console/merchants/{merchant}/staff")
}

async fn show(
    State(console): State<Console>,
    signed: Signed,
    Path(merchant): Path<String>,
) -> Result<Response, Failure> {
    let merchant = merchant_id(&merchant)?;
    let accounts = &console.accounts;
    let staff = accounts.staff(&signed.session, merchant).await?;
    let invitations = accounts.invitations_of(&signed.session, merchant).await?;
    Ok(view(&View {
        reader: &signed.reader(part(merchant)),
        form: &signed.form,
        merchant,
        person: signed.session.person.id,
        staff: &staff,
        invitations: &invitations,
    })
    .into_response())
}

async fn show_invite(
    State(console): State<Console>,
    signed: Signed,
    Path(merchant): Path<String>,
) -> Result<Response, Failure> {
    let merchant = merchant_id(&merchant)?;
    require_owner(&signed, merchant)?;
    require_recent_proof(&console, &signed)?;
    Ok(invite_view(&InviteView {
        reader: &signed.reader(part(merchant)),
        form: &signed.form,
        merchant,
        label: "",
        role: Role::Viewer,
        faults: &Faults::NONE,
    })
    .into_response())
}

fn require_owner(signed: &Signed, merchant: MerchantId) -> Result<(), Failure> {
    if signed.session.role_at(merchant)?.manages_staff() {
        Ok(())
    } else {
        Err(Error::Forbidden("Only an owner of this shop decides who is staff.").into())
    }
}

fn role_of(form: &Form) -> Result<Role, Failure> {
    let name = form.get("role");
    Role::ALL
        .into_iter()
        .find(|role| role.name() == name)
        .ok_or(Failure::Unreadable)
}

async fn invite(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(merchant): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let merchant = merchant_id(&merchant)?;
    let (role, label) = (role_of(&form)?, form.get("label").trim());
    let by = By::Person(&signed.session);
    let invited = Invited::Staff { merchant, role };
    let reader = signed.reader(part(merchant));
    match console
        .accounts
        .invite(
            &caller,
            by,
            invited,
            Some(label).filter(|label| !label.is_empty()),
        )
        .await
    {
        Ok((invitation, token)) => {
            let link = super::invitation::link(&console, token.expose());
            let list = list(merchant);
            Ok(invited_view(&reader, &invitation, &link, (&list, "Staff")).into_response())
        }
        Err(error @ Error::InvalidFields(_)) => {
            let page = invite_view(&InviteView {
                reader: &reader,
                form: &signed.form,
                merchant,
                label,
                role,
                faults: &faults_of(&error).unwrap_or_default(),
            });
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

async fn withdraw(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(merchant): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let merchant = merchant_id(&merchant)?;
    let id: InvitationId = form
        .get("invitation")
        .parse()
        .map_err(|_cause| Failure::Unreadable)?;
    console
        .accounts
        .withdraw_invitation(&caller, &signed.session, id)
        .await?;
    Ok(see_other(&list(merchant)))
}

async fn show_member(
    State(console): State<Console>,
    signed: Signed,
    Path(path): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (merchant, person) = ids(&path)?;
    require_owner(&signed, merchant)?;
    require_recent_proof(&console, &signed)?;
    member_page(&console, &signed, merchant, person, &Faults::NONE).await
}

async fn member_page(
    console: &Console,
    signed: &Signed,
    merchant: MerchantId,
    person: PersonId,
    faults: &Faults,
) -> Result<Response, Failure> {
    let staff = console.accounts.staff(&signed.session, merchant).await?;
    let member = staff
        .iter()
        .find(|member| member.person == person)
        .ok_or(Failure::NoPage)?;
    let page = member_view(&MemberView {
        reader: &signed.reader(part(merchant)),
        form: &signed.form,
        merchant,
        member,
        is_self: person == signed.session.person.id,
        faults,
    });
    let status = if faults.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    Ok((status, page).into_response())
}

async fn change_role(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(path): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let (merchant, person) = ids(&path)?;
    let role = role_of(&form)?;
    let changed = console
        .accounts
        .change_role(&caller, &signed.session, merchant, person, role)
        .await;
    after(&console, &signed, merchant, person, changed).await
}

async fn remove(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(path): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (merchant, person) = ids(&path)?;
    let removed = console
        .accounts
        .remove_staff(&caller, &signed.session, merchant, person)
        .await;
    if removed.is_ok() && person == signed.session.person.id {
        return Ok(see_other(crate::session::HOME));
    }
    after(&console, &signed, merchant, person, removed).await
}

/// Back to the list, or the member's page again with what was wrong: the last owner stays one.
async fn after(
    console: &Console,
    signed: &Signed,
    merchant: MerchantId,
    person: PersonId,
    done: Result<(), Error>,
) -> Result<Response, Failure> {
    match done {
        Ok(()) => Ok(see_other(&list(merchant))),
        Err(error @ (Error::InvalidFields(_) | Error::Forbidden(_)))
            if signed.session.role_at(merchant)?.manages_staff() =>
        {
            let faults = faults_of(&error).unwrap_or_default();
            member_page(console, signed, merchant, person, &faults).await
        }
        Err(error) => Err(error.into()),
    }
}
