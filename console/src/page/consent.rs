//! Consent: an app asks for access to a shop, and somebody of the shop's staff decides what it gets.
//!
//! Nothing is decided by looking: every answer is a form that was sent. What was given before is not asked for again, and stays what it is.

use std::time::Duration;

use kernel::{
    clock::Timestamp,
    id::{LocationId, MerchantId},
    scope::{Scope, ScopeSet},
};
use maud::{Markup, html};

use auth::{
    account::{Membership, Role},
    grant::LOCATIONS_MAX,
};

use crate::{
    component::{
        Faults, Tone, duration_words, fold, grouped, is_far_reaching, monogram, notice, scope_item,
        scope_list, summary, tick, time,
    },
    csrf::FormToken,
    layout::{Page, Reader, Width, page, role_words},
    place::Place,
};

mod decide;

pub(crate) use decide::routes;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// What the app is called.
    pub(crate) name: String,
    /// The host of its home page, if it names one.
    pub(crate) homepage_host: Option<String>,
    /// Where the browser goes afterwards, in words: a host, or `the app on this device`.
    pub(crate) returns_to: String,
    /// Whether it is part of this installation.
    pub(crate) is_own: bool,
}

/// What the page shows.
pub(crate) struct View<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What its forms carry.
    pub(crate) form: &'v FormToken,
    /// What the request is known by.
    pub(crate) handle: &'v str,
    /// Who asks.
    pub(crate) asker: &'v Asker,
    /// Which shop it is about.
    pub(crate) merchant: &'v Membership,
    /// Whether the reader may choose another shop.
    pub(crate) may_choose: bool,
    /// What is asked for and is new, without personal data.
    pub(crate) scopes: ScopeSet,
    /// What of that the app can't do without.
    pub(crate) required: ScopeSet,
    /// Whether personal data is asked for and is new.
    pub(crate) personal_data: bool,
    /// The shop's locations.
    pub(crate) places: &'v [Place],
    /// Until when it may be.
    pub(crate) ends: &'v [EndChoice],
    /// What was given before.
    pub(crate) existing: Option<&'v Existing>,
    /// What is ticked and chosen.
    pub(crate) chosen: &'v Chosen,
    /// When the request ends.
    pub(crate) expires_at: Timestamp,
    /// What was wrong.
    pub(crate) faults: &'v Faults,
}

/// What was given before.
#[derive(Debug, Clone)]
pub(crate) struct Existing {
    /// The version of the grant.
    pub(crate) version: i64,
    /// What the app may do.
    pub(crate) scopes: ScopeSet,
    /// Whether personal data is included.
    pub(crate) personal_data: bool,
    /// The names of the locations that it is limited to; `None`: all.
    pub(crate) places: Option<Vec<String>>,
    /// When it ends.
    pub(crate) expires_at: Option<Timestamp>,
}

/// One choice of an end.
#[derive(Debug, Clone)]
pub(crate) struct EndChoice {
    /// As the form has it.
    pub(crate) name: &'static str,
    /// In words.
    pub(crate) words: String,
    /// When that is; `None`: never by itself.
    pub(crate) ends_at: Option<Timestamp>,
}

/// What is ticked and chosen.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// The scopes.
    pub(crate) scopes: ScopeSet,
    /// Personal data.
    pub(crate) personal_data: bool,
    /// Certain locations; `None`: all.
    pub(crate) places: Option<Vec<LocationId>>,
    /// The end.
    pub(crate) end: String,
}

/// How many seconds are a day, as ends are worded.
pub(crate) fn end_words(name: &str, asked: Option<Duration>) -> String {
    match name {
        "unchanged" => "Leave as it is".to_owned(),
        "day" => "A day".to_owned(),
        "week" => "A week".to_owned(),
        "month" => "A month".to_owned(),
        "year" => "A year".to_owned(),
        "as_asked" => asked.map_or_else(String::new, |asked| {
            format!(
                "{}, as the app asks",
                crate::component::capital(&duration_words(asked))
            )
        }),
        _ => "Until I end it".to_owned(),
    }
}

/// The page.
pub(crate) fn view(view: &View<'_>) -> Markup {
    let is_new = !view.scopes.is_empty() || view.personal_data;
    let action = format!("/console/consent/{}", view.handle);
    let name = &view.asker.name;
    let title = if view.existing.is_none() {
        html! { (name) " asks for access to " (view.merchant.merchant_name) }
    } else if is_new {
        html! { (name) " asks for more access to " (view.merchant.merchant_name) }
    } else {
        html! { "Continue with " (name) "?" }
    };
    let content = html! {
        (summary(view.faults))
        div.card.ask {
            div.ask-part { (who(view, &title)) }
            form method="post" action=(action) {
                (view.form)
                input type="hidden" name="decision" value="allow";
                input type="hidden" name="merchant" value=(view.merchant.merchant);
                @if let Some(existing) = view.existing { input type="hidden" name="grant_version" value=(existing.version); }
                @if is_new {
                    @if !view.scopes.is_empty() { (scopes(view)) }
                    @if view.personal_data { (personal_data(view)) }
                    @if view.existing.is_none() { (places(view)) }
                    (ends(view))
                } @else {
                    div.ask-part {
                        p { "It asks for nothing that it may not do already. Continuing takes you back to it, and changes nothing." }
                        input type="hidden" name="end" value="unchanged";
                    }
                }
                @if let Some(existing) = view.existing { div.ask-part { (fold("What it may do already", terms(existing))) } }
                div.ask-part.ask-end {
                    div.actions {
                        button.button.button-primary type="submit" { @if is_new { "Allow access" } @else { "Continue" } }
                        button.button.button-plain type="submit" form="cancel" { "Cancel" }
                    }
                    p.small.soft {
                        "Either way you go back to " strong { (view.asker.returns_to) } ". "
                        @if is_new { "You can narrow or end this access at any time under Apps. " }
                        "This request ends " (time(view.expires_at)) "."
                    }
                }
            }
        }
        form #cancel method="post" action=(action) {
            (view.form)
            input type="hidden" name="decision" value="cancel";
        }
    };
    let title = if view.faults.is_empty() {
        format!("{name} asks for access")
    } else {
        format!("Error: {name} asks for access")
    };
    page(
        Page {
            title: &title,
            reader: Some(view.reader),
            width: Width::Middle,
            passkeys: false,
        },
        content,
    )
}

fn who(view: &View<'_>, title: &Markup) -> Markup {
    html! {
        div.who {
            (monogram(&view.asker.name, false))
            div {
                h1 { (title) }
                (identity(view.asker))
                @if view.may_choose {
                    p { a href={ "/console/consent/" (view.handle) } { "Choose another shop" } }
                }
            }
        }
    }
}

fn identity(asker: &Asker) -> Markup {
    html! {
        @if asker.is_own {
            p.soft { "This is Stoa's own command line. Go on only if you have just started it yourself." }
        } @else {
            p.soft {
                @if let Some(host) = &asker.homepage_host { "It says that it belongs to " strong { (host) } ". " }
                "Neither its name nor its maker is verified by us. Go on only if you meant to install it."
            }
        }
    }
}

fn scopes(view: &View<'_>) -> Markup {
    html! {
        fieldset.ask-part #scopes {
            legend.hidden-visually { "What it will be able to do" }
            h2 aria-hidden="true" { @if view.existing.is_some() { "What it would be able to do as well" } @else { "What it will be able to do" } }
            @if view.scopes.iter().any(|scope| !is_required(view, scope)) {
                p.soft { "Untick what you would rather not give." }
            }
            @for (heading, scopes) in grouped(view.scopes) {
                @if !scopes.is_empty() {
                    div role="group" aria-label=(heading) {
                        h3 aria-hidden="true" { (heading) }
                        ul.choices { @for scope in scopes { li { (scope_choice(view, scope)) } } }
                    }
                }
            }
            @if view.scopes.iter().any(|scope| is_required(view, scope)) {
                p.small.soft { (view.asker.name) " can't work without what is marked as needed." }
            }
        }
    }
}

/// A scope is needed also where a needed one brings it with it.
fn is_required(view: &View<'_>, scope: Scope) -> bool {
    view.required.allows(scope)
}

fn scope_choice(view: &View<'_>, scope: Scope) -> Markup {
    let id = format!("scope-{}", scope.name().replace([':', '.'], "-"));
    let includes = scope
        .implied()
        .filter(|&implied| !view.scopes.iter().any(|asked| asked == implied));
    let words = html! {
        span {
            (scope_item(scope))
            @if is_required(view, scope) { " " span.tag { "needed" } }
            @if let Some(implied) = includes { span.hint { "and " (implied.words()) } }
            @if is_far_reaching(scope) { span.hint { "This reaches far: give it only to an app that runs the shop for you." } }
        }
    };
    html! {
        @if is_required(view, scope) {
            div.choice { (tick()) (words) }
        } @else {
            label.choice for=(id) {
                input #(id) type="checkbox" name="scope" value=(scope) checked[view.chosen.scopes.iter().any(|chosen| chosen == scope)];
                (words)
            }
        }
    }
}

fn personal_data(view: &View<'_>) -> Markup {
    let needed = view.required.allows(Scope::OrdersPiiRead);
    html! {
        fieldset.ask-part.ask-personal {
            legend.hidden-visually { "Personal data" }
            h2 aria-hidden="true" { "Personal data" }
            p { "Orders say who your customers are: names, addresses, e-mail and telephone. "
                "Without it " (view.asker.name) " sees what was ordered, and not by whom." }
            div.choices {
                @if needed {
                    div.choice { (tick()) span { "See the names, addresses and contacts of customers " span.tag { "needed" } } }
                } @else {
                    label.choice for="personal_data" {
                        input #personal_data type="checkbox" name="personal_data" value="yes" checked[view.chosen.personal_data];
                        span { "See the names, addresses and contacts of customers" }
                    }
                }
            }
        }
    }
}

fn places(view: &View<'_>) -> Markup {
    let all = view.chosen.places.is_none();
    html! {
        @if view.places.len() > 1 {
            fieldset.ask-part.where {
                legend.hidden-visually { "Where" }
                h2 aria-hidden="true" { "Where" }
                p.soft { "It can be kept to certain locations: it then sees the orders, stock and shipments of those alone." }
                (place_choices(view.places, view.chosen.places.as_deref(), all, view.faults))
            }
        }
    }
}

/// The choice of all locations or certain ones.
pub(crate) fn place_choices(
    places: &[Place],
    chosen: Option<&[LocationId]>,
    all: bool,
    faults: &Faults,
) -> Markup {
    let fault = faults.of("locations");
    html! {
        @if let Some(fault) = &fault { div.field { p.fault #locations-fault { (fault) } } }
        ul.choices {
            li {
                label.choice for="where-all" {
                    input #where-all type="radio" name="where" value="all" checked[all];
                    span { "All locations" span.hint { "also those that you add later" } }
                }
            }
            li {
                label.choice for="locations" {
                    input #locations type="radio" name="where" value="some" checked[!all] aria-describedby=[fault.as_ref().map(|_| "locations-fault")]
                        aria-invalid=[fault.as_ref().map(|_| "true")];
                    span { "Only certain ones" span.hint { "at most " (LOCATIONS_MAX) } }
                }
                div.places-box {
                    div role="group" aria-label="Locations" {
                        ul.places {
                            @for place in places {
                                li {
                                    label.choice for={ "place-" (place.id) } {
                                        input id={ "place-" (place.id) } type="checkbox" name="location" value=(place.id)
                                            checked[chosen.is_some_and(|chosen| chosen.contains(&place.id))];
                                        span { (place.name) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn ends(view: &View<'_>) -> Markup {
    html! {
        @match (view.existing, view.ends) {
            // It ends as late as it can already.
            (Some(_), [only]) => { input type="hidden" name="end" value=(only.name); }
            _ => fieldset.ask-part {
                legend.hidden-visually { "Until when" }
                h2 aria-hidden="true" { "Until when" }
                ul.choices { @for end in view.ends { li { (end_choice(end, view.chosen.end == end.name)) } } }
            },
        }
    }
}

/// One choice of an end.
pub(crate) fn end_choice(end: &EndChoice, is_chosen: bool) -> Markup {
    html! {
        label.choice for={ "end-" (end.name) } {
            input id={ "end-" (end.name) } type="radio" name="end" value=(end.name) checked[is_chosen] required;
            span {
                (end.words)
                span.hint {
                    @match end.ends_at {
                        Some(at) => { "ends " (time(at)) },
                        None if end.name == "unchanged" => "has no end of its own",
                        None => "stays until you or another of your staff ends it",
                    }
                }
            }
        }
    }
}

/// What was given, to read.
fn terms(existing: &Existing) -> Markup {
    html! {
        h2.hidden-visually { "What it has now" }
        (scope_list(existing.scopes))
        dl.facts {
            dt { "Personal data" } dd { @if existing.personal_data { "included" } @else { "not included" } }
            dt { "Where" } dd {
                @match &existing.places { None => "all locations", Some(places) => (places.join(", ")) }
            }
            dt { "Until" } dd {
                @match existing.expires_at { Some(end) => (time(end)), None => "you end it" }
            }
        }
    }
}

/// Who asks, and for which of several shops?
pub(crate) struct Choice<'v> {
    /// Who reads it.
    pub(crate) reader: &'v Reader,
    /// What the form that cancels carries.
    pub(crate) form: &'v FormToken,
    /// What the request is known by.
    pub(crate) handle: &'v str,
    /// Who asks.
    pub(crate) asker: &'v Asker,
    /// The shops.
    pub(crate) memberships: &'v [Membership],
}

/// The page that asks for which shop it is.
pub(crate) fn choice(view: &Choice<'_>) -> Markup {
    let content = html! {
        div.card {
            div.who {
                (monogram(&view.asker.name, false))
                div {
                    h1 { "Which shop is " (view.asker.name) " for?" }
                    (identity(view.asker))
                }
            }
            ul.rows {
                @for membership in view.memberships {
                    li { (shop(view.handle, membership)) }
                }
            }
            (cancel(view.handle, view.form))
        }
    };
    page(
        Page {
            title: "Choose a shop",
            reader: Some(view.reader),
            width: Width::Middle,
            passkeys: false,
        },
        content,
    )
}

fn shop(handle: &str, membership: &Membership) -> Markup {
    let name = &membership.merchant_name;
    html! {
        @if membership.role.decides_grants() {
            a.row href={ "/console/consent/" (handle) "?merchant=" (membership.merchant) } {
                (monogram(name, true))
                span.row-main { span.row-title { (name) } }
            }
        } @else {
            div.row {
                (monogram(name, true))
                span.row-main {
                    span.row-title.soft { (name) }
                    br;
                    span.hint { "You are a viewer there; an owner or manager must decide." }
                }
            }
        }
    }
}

fn cancel(handle: &str, form: &FormToken) -> Markup {
    html! {
        form method="post" action={ "/console/consent/" (handle) } {
            (form)
            input type="hidden" name="decision" value="cancel";
            button.button.button-plain type="submit" { "Cancel" }
        }
    }
}

/// Why somebody can't decide.
#[derive(Debug, Clone)]
pub(crate) enum Hindrance {
    /// They see this shop, and decide nothing there.
    Viewer(String),
    /// They belong to no shop, or not to the one that is asked for.
    NoShop,
}

/// The page for who can't decide.
pub(crate) fn hindered(
    reader: &Reader,
    form: &FormToken,
    handle: &str,
    asker: &Asker,
    hindrance: &Hindrance,
) -> Markup {
    let content = html! {
        div.card {
            div.who {
                (monogram(&asker.name, false))
                div {
                    h1 {
                        @match hindrance {
                            Hindrance::Viewer(_) => "An owner or manager must decide this",
                            Hindrance::NoShop => "There is no shop here for you to decide for",
                        }
                    }
                }
            }
            @match hindrance {
                Hindrance::Viewer(merchant) => {
                    (notice(Tone::Plain, html! {
                        p { (asker.name) " asks for access to " strong { (merchant) } ". You are a viewer there: a viewer " (role_words(Role::Viewer).1) "." }
                    }))
                    p { "Ask an owner or a manager of the shop to begin from the app themselves. This request can't be handed on." }
                }
                Hindrance::NoShop => {
                    p { (asker.name) " asks for access to a shop whose staff you do not belong to. An owner of the shop can invite you." }
                }
            }
            (cancel(handle, form))
        }
    };
    page(
        Page {
            title: "You can't decide this",
            reader: Some(reader),
            width: Width::Middle,
            passkeys: false,
        },
        content,
    )
}

/// The merchant that the address names, if it is one.
pub(crate) fn merchant_of(text: &str) -> Option<MerchantId> {
    text.parse().ok()
}
