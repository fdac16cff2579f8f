//! How a request is shown and decided.

use auth::{
    Error,
    account::{Membership, Session},
    authorization::{Decision, GrantEnd, PendingRequest},
    grant::Grant,
};
use axum::{
    Extension, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use kernel::{
    caller::Caller,
    clock::Timestamp,
    id::{AppId, LocationId, MerchantId},
    scope::{Scope, ScopeSet},
};
use maud::Markup;
use serde::Deserialize;

use super::{
    Asker, Choice, Chosen, EndChoice, Existing, Hindrance, View, choice, end_words, hindered,
    merchant_of, view,
};
use crate::{
    Console,
    component::{Faults, faults_of},
    csrf::Form,
    failure::Failure,
    layout::Place as Part,
    place::{Place, names_of, places},
    security::{FormTarget, form_target},
    session::{Signed, require_recent_proof, see_other},
};

/// The app of Stoa's own command line.
const COMMAND_LINE: u128 = 0x0000_0000_0000_7000_8000_0000_0000_00c1;

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route("/console/consent/{handle}", get(show).post(submit))
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    merchant: String,
}

async fn show(
    State(console): State<Console>,
    signed: Signed,
    Path(handle): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let pending = console.authorizations.pending(&handle).await?;
    // Before the form, so that nothing that was ticked is lost to it.
    require_recent_proof(&console, &signed)?;
    let target = form_target(pending.redirect_uri.as_str());
    let page = match shop(&signed.session, &pending, merchant_of(&asked.merchant)) {
        Shop::One(membership) => {
            let question = Question::new(&console, pending, membership.clone()).await?;
            let chosen = question.preselected();
            question.page(&signed, &handle, &chosen, &Faults::NONE)
        }
        Shop::Several => choice(&Choice {
            reader: &signed.reader(Part::Aside),
            form: &signed.form,
            handle: &handle,
            asker: &asker(&pending),
            memberships: &signed.session.memberships,
        }),
        Shop::None(hindrance) => hindered(
            &signed.reader(Part::Aside),
            &signed.form,
            &handle,
            &asker(&pending),
            &hindrance,
        ),
    };
    Ok(with_target(page.into_response(), target))
}

/// Lets the answer to the page's forms lead to the client.
fn with_target(mut response: Response, target: Option<FormTarget>) -> Response {
    if let Some(target) = target {
        response.extensions_mut().insert(target);
    }
    response
}

/// For which shop the request is decided.
enum Shop<'s> {
    One(&'s Membership),
    Several,
    None(Hindrance),
}

fn shop<'s>(
    session: &'s Session,
    pending: &PendingRequest,
    chosen: Option<MerchantId>,
) -> Shop<'s> {
    let memberships = session.memberships.as_slice();
    let wanted = pending.merchant.or(chosen);
    let found = match (wanted, memberships) {
        (Some(wanted), _) => memberships
            .iter()
            .find(|membership| membership.merchant == wanted),
        (None, [only]) => Some(only),
        (None, []) => None,
        (None, _) => return Shop::Several,
    };
    match found {
        Some(membership) if membership.role.decides_grants() => Shop::One(membership),
        Some(membership) => Shop::None(Hindrance::Viewer(membership.merchant_name.clone())),
        None => Shop::None(Hindrance::NoShop),
    }
}

fn asker(pending: &PendingRequest) -> Asker {
    let uri = &pending.redirect_uri;
    let is_web = matches!(uri.scheme(), "http" | "https");
    let is_loopback = uri
        .host_str()
        .is_some_and(|host| matches!(host, "127.0.0.1" | "[::1]" | "localhost"));
    let host = uri.host_str().filter(|_| is_web && !is_loopback);
    let homepage = pending.app.homepage_url.as_deref();
    Asker {
        name: pending.app.name.clone(),
        homepage_host: homepage
            .and_then(|url| url::Url::parse(url).ok())
            .and_then(|url| url.host_str().map(ToOwned::to_owned)),
        returns_to: host.map_or_else(|| "the app on this device".to_owned(), ToOwned::to_owned),
        is_own: pending.app.id == AppId::from_uuid(uuid::Uuid::from_u128(COMMAND_LINE)),
    }
}

/// A request, and whatever is needed to show it for one shop.
struct Question {
    pending: PendingRequest,
    membership: Membership,
    grant: Option<Grant>,
    places: Vec<Place>,
    now: Timestamp,
}

impl Question {
    async fn new(
        console: &Console,
        pending: PendingRequest,
        membership: Membership,
    ) -> Result<Self, Failure> {
        let grant = console
            .authorizations
            .living_grant(membership.merchant, pending.app.id)
            .await?;
        let places = places(console, membership.merchant).await?;
        Ok(Self {
            pending,
            membership,
            grant,
            places,
            now: console.clock.now(),
        })
    }

    /// What is asked for and not given yet, without personal data.
    fn new_scopes(&self) -> ScopeSet {
        self.pending
            .scopes
            .iter()
            .filter(|&scope| scope != Scope::OrdersPiiRead)
            .filter(|&scope| {
                self.grant
                    .as_ref()
                    .is_none_or(|grant| !grant.scopes.allows(scope))
            })
            .collect()
    }

    fn asks_for_new_personal_data(&self) -> bool {
        self.pending.personal_data
            && self.grant.as_ref().is_none_or(|grant| {
                !(grant.personal_data && grant.scopes.allows(Scope::OrdersPiiRead))
            })
    }

    fn ends(&self) -> Vec<EndChoice> {
        let unchanged = self.grant.is_some().then_some(GrantEnd::Unchanged);
        let later = GrantEnd::choices(self.pending.longest)
            .into_iter()
            .filter(|end| self.is_later(end.at(self.now, self.pending.longest)));
        unchanged
            .into_iter()
            .chain(later)
            .map(|end| EndChoice {
                name: end.name(),
                words: end_words(end.name(), self.pending.longest),
                ends_at: match end {
                    GrantEnd::Unchanged => self.grant.as_ref().and_then(|grant| grant.expires_at),
                    end => end.at(self.now, self.pending.longest),
                },
            })
            .collect()
    }

    /// Whether `end` is later than the end that there is; consent given again takes nothing away.
    fn is_later(&self, end: Option<Timestamp>) -> bool {
        let Some(grant) = &self.grant else {
            return true;
        };
        match (grant.expires_at, end) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(old), Some(new)) => new > old,
        }
    }

    /// What is ticked before anybody has touched the form: what the app asks for, and of the ends the longest that there is.
    fn preselected(&self) -> Chosen {
        let ends = self.ends();
        let end = if self.grant.is_some() {
            Some(GrantEnd::Unchanged.name())
        } else {
            let limited = ends.iter().rev().find(|end| end.ends_at.is_some());
            limited.or(ends.last()).map(|end| end.name)
        };
        Chosen {
            scopes: self.new_scopes(),
            personal_data: self.asks_for_new_personal_data(),
            places: None,
            end: end.unwrap_or_default().to_owned(),
        }
    }

    fn page(&self, signed: &Signed, handle: &str, chosen: &Chosen, faults: &Faults) -> Markup {
        let existing = self.grant.as_ref().map(|grant| Existing {
            version: grant.version,
            scopes: grant.scopes,
            personal_data: grant.personal_data,
            places: grant
                .locations
                .as_deref()
                .map(|ids| names_of(&self.places, ids)),
            expires_at: grant.expires_at,
        });
        view(&View {
            reader: &signed.reader(Part::Aside),
            form: &signed.form,
            handle,
            asker: &asker(&self.pending),
            merchant: &self.membership,
            may_choose: self.pending.merchant.is_none() && signed.session.memberships.len() > 1,
            scopes: self.new_scopes(),
            required: self.pending.required,
            personal_data: self.asks_for_new_personal_data(),
            places: &self.places,
            ends: &self.ends(),
            existing: existing.as_ref(),
            chosen,
            expires_at: self.pending.expires_at,
            faults,
        })
    }
}

async fn submit(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    signed: Signed,
    Path(handle): Path<String>,
    form: Form,
) -> Result<Response, Failure> {
    let authorizations = &console.authorizations;
    match form.get("decision") {
        "cancel" => {
            let url = authorizations
                .refuse(&caller, &signed.session, &handle)
                .await?;
            return Ok(see_other(url.as_str()));
        }
        "allow" => {}
        _ => return Err(Failure::Unreadable),
    }
    let merchant = merchant_of(form.get("merchant")).ok_or(Failure::Unreadable)?;
    let pending = authorizations.pending(&handle).await?;
    let target = form_target(pending.redirect_uri.as_str());
    let membership = signed
        .session
        .memberships
        .iter()
        .find(|membership| membership.merchant == merchant)
        .cloned()
        .ok_or(Failure::NoPage)?;
    let question = Question::new(&console, pending, membership).await?;
    let chosen = chosen(&form)?;
    let decided = match decision(&question, &form, &chosen) {
        Ok(decision) => {
            authorizations
                .consent(&caller, &signed.session, &handle, merchant, decision)
                .await
        }
        Err(faults) => {
            return Ok(refused(
                &question, &signed, &handle, &chosen, &faults, target,
            ));
        }
    };
    match decided {
        Ok(url) => Ok(see_other(url.as_str())),
        Err(Error::Changed(_)) => {
            // What the page showed is not what is there: shown anew, with nothing that was ticked before.
            let question = Question::new(&console, question.pending, question.membership).await?;
            let faults = Faults::general(
                "What this app may do has changed meanwhile. Please look again and decide.",
            );
            let chosen = question.preselected();
            Ok(refused(
                &question, &signed, &handle, &chosen, &faults, target,
            ))
        }
        Err(error @ Error::InvalidFields(_)) => {
            let faults = faults_of(&error).unwrap_or_default();
            Ok(refused(
                &question, &signed, &handle, &chosen, &faults, target,
            ))
        }
        Err(error) => Err(error.into()),
    }
}

fn refused(
    question: &Question,
    signed: &Signed,
    handle: &str,
    chosen: &Chosen,
    faults: &Faults,
    target: Option<FormTarget>,
) -> Response {
    let page = question.page(signed, handle, chosen, faults);
    with_target(
        (StatusCode::UNPROCESSABLE_ENTITY, page).into_response(),
        target,
    )
}

/// What was ticked and chosen.
fn chosen(form: &Form) -> Result<Chosen, Failure> {
    let scopes = form
        .all("scope")
        .map(str::parse)
        .collect::<Result<ScopeSet, _>>();
    let places = form
        .all("location")
        .map(str::parse)
        .collect::<Result<Vec<LocationId>, _>>();
    let (Ok(scopes), Ok(places)) = (scopes, places) else {
        return Err(Failure::Unreadable);
    };
    Ok(Chosen {
        scopes,
        personal_data: form.has("personal_data"),
        places: (form.get("where") == "some").then_some(places),
        end: form.get("end").to_owned(),
    })
}

fn decision(question: &Question, form: &Form, chosen: &Chosen) -> Result<Decision, Faults> {
    let required = question.pending.required;
    let new = question.new_scopes();
    // What is needed has no box.
    let scopes: ScopeSet = new
        .iter()
        .filter(|&scope| required.allows(scope) || chosen.scopes.iter().any(|it| it == scope))
        .collect();
    let personal_data = question.asks_for_new_personal_data()
        && (chosen.personal_data || required.allows(Scope::OrdersPiiRead));
    if question.grant.is_none() && scopes.is_empty() && !personal_data {
        return Err(Faults::at(
            "scopes",
            "Choose at least one thing that the app may do, or cancel.",
        ));
    }
    let locations = match &question.grant {
        Some(grant) => grant.locations.clone(),
        None => chosen.places.clone(),
    };
    if locations.as_ref().is_some_and(Vec::is_empty) {
        return Err(Faults::at("locations", "Choose at least one location."));
    }
    let Some(end) = GrantEnd::parse(&chosen.end) else {
        return Err(Faults::at("end-day", "Choose until when."));
    };
    let version = form.get("grant_version");
    Ok(Decision {
        scopes,
        personal_data,
        locations,
        end,
        grant_version: version.parse().ok(),
    })
}
