//! What every page stands in: the document, the bars at its top, and the part that the page fills.

use kernel::id::MerchantId;
use maud::{DOCTYPE, Markup, html};

use auth::account::{Membership, Role, Session};

use crate::{asset, csrf::FormToken};

/// A page: what it is called, how wide it is, and what it says.
pub(crate) struct Page<'v> {
    /// The title of the document, without the product's name.
    pub(crate) title: &'v str,
    /// Who reads it; `None`: nobody has signed in.
    pub(crate) reader: Option<&'v Reader>,
    /// How wide its text runs.
    pub(crate) width: Width,
    /// Whether it needs the script that talks to passkeys.
    pub(crate) passkeys: bool,
}

/// How wide the text of a page runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// One short form.
    Narrow,
    /// One thing to read and decide.
    Middle,
    /// Lists.
    Wide,
}

/// Who reads a page, and where in the console it stands.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    /// What they are called.
    pub(crate) name: String,
    /// Whether they run the installation.
    pub(crate) is_operator: bool,
    /// Whether they make apps.
    pub(crate) is_developer: bool,
    /// Where they are staff.
    pub(crate) memberships: Vec<Membership>,
    /// The part of the console that the page belongs to.
    pub(crate) place: Place,
    /// What the form that signs out carries.
    pub(crate) form: FormToken,
}

/// A part of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// None of the parts.
    Aside,
    /// A merchant's pages.
    Merchant(MerchantId, MerchantTab),
    /// An app developer's pages.
    Developer,
    /// The installation's pages.
    Operator(OperatorTab),
    /// One's own account.
    Account(AccountTab),
}

/// A merchant's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MerchantTab {
    /// What is installed.
    Apps,
    /// Who works there.
    Staff,
    /// What has happened.
    Activity,
}

/// The installation's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperatorTab {
    /// The merchants.
    Merchants,
    /// The people.
    People,
}

/// The pages of one's own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccountTab {
    /// Name and roles.
    Profile,
    /// Password and second factors.
    Security,
    /// Where one is signed in.
    Sessions,
}

impl Reader {
    /// The person of `session`, at `place`.
    pub(crate) fn new(session: &Session, place: Place, form: FormToken) -> Self {
        Self {
            name: session.person.name.clone(),
            is_operator: session.person.is_operator,
            is_developer: session.person.is_developer,
            memberships: session.memberships.clone(),
            place,
            form,
        }
    }

    fn role_at(&self, merchant: MerchantId) -> Option<&Membership> {
        self.memberships
            .iter()
            .find(|membership| membership.merchant == merchant)
    }
}

/// Renders `content` as a page.
#[allow(
    clippy::needless_pass_by_value,
    reason = "what is rendered is handed over"
)]
pub(crate) fn page(page: Page<'_>, content: Markup) -> Markup {
    let width = match page.width {
        Width::Narrow => Some("narrow"),
        Width::Middle => Some("middle"),
        Width::Wide => None,
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (page.title) " · Stoa" }
                link rel="icon" href=(asset::ICON.path());
                link rel="stylesheet" href=(asset::STYLE.path());
                @if page.passkeys { script src=(asset::PASSKEY.path()) defer {} }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.bar {
                    div.bar-row {
                        a.brand href="/console/" { (mark()) "Stoa" }
                        @if let Some(reader) = page.reader { (bar(reader)) }
                    }
                }
                @if let Some(reader) = page.reader { (tabs(reader)) }
                main #main tabindex="-1" class=[width] { (content) }
                footer.foot { "All times are in UTC." }
            }
        }
    }
}

/// The mark: a colonnade.
fn mark() -> Markup {
    html! {
        svg width="26" height="26" viewBox="0 0 26 26" fill="currentColor" aria-hidden="true" focusable="false" {
            path d="M2 3h22v4H2zM2 21h22v3H2zM4 9h4v10H4zM11 9h4v10h-4zM18 9h4v10h-4z" {}
        }
    }
}

fn bar(reader: &Reader) -> Markup {
    let parts = [
        !reader.memberships.is_empty(),
        reader.is_developer || reader.is_operator,
        reader.is_operator,
    ];
    let several = parts.iter().filter(|part| **part).count() > 1;
    let in_account = matches!(reader.place, Place::Account(_));
    html! {
        @if several {
            nav.areas aria-label="Parts of the console" {
                @if !reader.memberships.is_empty() {
                    a href=(first_shop(reader)) aria-current=[current(matches!(reader.place, Place::Merchant(..)))] { "Shops" }
                }
                @if reader.is_developer || reader.is_operator {
                    a href="/console/developer/apps" aria-current=[current(reader.place == Place::Developer)] { "Developer" }
                }
                @if reader.is_operator {
                    a href="/console/operator/merchants" aria-current=[current(matches!(reader.place, Place::Operator(_)))] { "Operator" }
                }
            }
        }
        div.person {
            a href="/console/account" aria-current=[current(in_account)] {
                span.hidden-visually { "Your account: " }
                span { (reader.name) }
            }
            form method="post" action="/console/sign-out" {
                (reader.form)
                button.link type="submit" { "Sign out" }
            }
        }
    }
}

/// Where somebody begins: their first shop, their apps, the installation, or themselves.
pub(crate) fn first_shop(reader: &Reader) -> String {
    home(&reader.memberships, reader.is_developer, reader.is_operator)
}

/// The first page that somebody with these roles has a use for.
pub(crate) fn home(memberships: &[Membership], is_developer: bool, is_operator: bool) -> String {
    if let Some(membership) = memberships.first() {
        format!("/console/merchants/{}/apps", membership.merchant)
    } else if is_developer {
        "/console/developer/apps".to_owned()
    } else if is_operator {
        "/console/operator/merchants".to_owned()
    } else {
        "/console/account".to_owned()
    }
}

fn current(is_current: bool) -> Option<&'static str> {
    is_current.then_some("page")
}

fn tabs(reader: &Reader) -> Markup {
    match reader.place {
        Place::Aside | Place::Developer => html! {},
        Place::Merchant(merchant, tab) => merchant_tabs(reader, merchant, tab),
        Place::Operator(tab) => html! {
            nav.tabs aria-label="Installation" {
                div.tabs-row {
                    ul {
                        (tab_link("/console/operator/merchants", "Merchants", tab == OperatorTab::Merchants))
                        (tab_link("/console/operator/people", "People", tab == OperatorTab::People))
                    }
                }
            }
        },
        Place::Account(tab) => html! {
            nav.tabs aria-label="Your account" {
                div.tabs-row {
                    ul {
                        (tab_link("/console/account", "Profile", tab == AccountTab::Profile))
                        (tab_link("/console/account/security", "Security", tab == AccountTab::Security))
                        (tab_link("/console/account/sessions", "Sessions", tab == AccountTab::Sessions))
                    }
                }
            }
        },
    }
}

fn merchant_tabs(reader: &Reader, merchant: MerchantId, tab: MerchantTab) -> Markup {
    let membership = reader.role_at(merchant);
    let name = membership.map_or("", |membership| membership.merchant_name.as_str());
    let owner = membership.is_some_and(|membership| membership.role.manages_staff());
    html! {
        nav.tabs aria-label="Shop" {
            div.tabs-row {
                @if reader.memberships.len() > 1 {
                    details.switch {
                        summary {
                            span { span.hidden-visually { "Shop: " } (name) }
                        }
                        ul {
                            @for other in &reader.memberships {
                                li {
                                    a href={ "/console/merchants/" (other.merchant) "/apps" } aria-current=[(other.merchant == merchant).then_some("true")] {
                                        (other.merchant_name)
                                    }
                                }
                            }
                        }
                    }
                } @else {
                    div.switch-one { (name) }
                }
                ul {
                    (tab_link(&format!("/console/merchants/{merchant}/apps"), "Apps", tab == MerchantTab::Apps))
                    (tab_link(&format!("/console/merchants/{merchant}/staff"), "Staff", tab == MerchantTab::Staff))
                    @if owner {
                        (tab_link(&format!("/console/merchants/{merchant}/activity"), "Activity", tab == MerchantTab::Activity))
                    }
                }
            }
        }
    }
}

fn tab_link(href: &str, label: &str, is_current: bool) -> Markup {
    html! { li { a href=(href) aria-current=[current(is_current)] { (label) } } }
}

/// What a role is called, and what it may do, in words.
pub(crate) const fn role_words(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Viewer => ("Viewer", "sees what is installed, and changes nothing"),
        Role::Manager => (
            "Manager",
            "installs apps, and changes and ends their access",
        ),
        Role::Owner => (
            "Owner",
            "does that too, decides who is staff, and reads the activity",
        ),
    }
}
