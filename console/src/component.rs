//! The parts that pages are made of: fields, notices, lists of scopes, dates.

use std::time::Duration;

use auth::Error;
use chrono::{DateTime, Utc};
use kernel::{
    clock::Timestamp,
    problem::FieldError,
    scope::{Scope, ScopeSet},
};
use maud::{Markup, html};

/// Whatever is wrong with what was sent, in sentences for whoever sent it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults(Vec<Fault>);

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// The field's name, if it is a field's; the summary links to it.
    pub(crate) field: Option<String>,
    /// The sentence.
    pub(crate) sentence: String,
}

impl Faults {
    /// Nothing wrong.
    pub(crate) const NONE: Self = Self(Vec::new());

    /// One sentence that belongs to no field.
    pub(crate) fn general(sentence: impl Into<String>) -> Self {
        Self(vec![Fault {
            field: None,
            sentence: sentence.into(),
        }])
    }

    /// One sentence at a field.
    pub(crate) fn at(field: &str, sentence: impl Into<String>) -> Self {
        Self(vec![Fault {
            field: Some(field.to_owned()),
            sentence: sentence.into(),
        }])
    }

    /// The faults of an input, whose pointers are mapped to the names of the form's fields: `/redirectUris/0` is of the field `redirect_uris`.
    pub(crate) fn of_fields(errors: &[FieldError]) -> Self {
        Self(errors.iter().map(Fault::of).collect())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong with `field`.
    pub(crate) fn of(&self, field: &str) -> Option<String> {
        let sentences: Vec<&str> = self
            .0
            .iter()
            .filter(|fault| fault.field.as_deref() == Some(field))
            .map(|fault| fault.sentence.as_str())
            .collect();
        (!sentences.is_empty()).then(|| sentences.join(" "))
    }
}

impl Fault {
    fn of(error: &FieldError) -> Self {
        let pointer = error.pointer.as_deref().unwrap_or_default();
        let step = pointer.trim_start_matches('/');
        let step = step.split('/').next().unwrap_or_default();
        let mut field = String::new();
        for character in step.chars() {
            if character.is_ascii_uppercase() {
                field.push('_');
            }
            field.push(character.to_ascii_lowercase());
        }
        let detail = error.detail.trim_end_matches('.');
        let sentence = if detail.starts_with("must") || detail.starts_with("is ") {
            format!("This {detail}.")
        } else {
            format!("{}.", capital(detail))
        };
        Self {
            field: (!field.is_empty()).then_some(field),
            sentence,
        }
    }
}

/// The first letter as a capital.
pub(crate) fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters).collect()
    })
}

/// What is wrong, above the form: announced, and given the focus.
pub(crate) fn summary(faults: &Faults) -> Markup {
    html! {
        @if !faults.is_empty() {
            div.notice.notice-fault #faults role="alert" tabindex="-1" autofocus {
                @match faults.0.as_slice() {
                    [only] => {
                        p {
                            @if let Some(field) = &only.field { a href={ "#" (field) } { (only.sentence) } } @else { (only.sentence) }
                        }
                    }
                    several => {
                        p { strong { "Please mend " (several.len()) " things." } }
                        ul.plain-list {
                            @for fault in several {
                                li {
                                    @if let Some(field) = &fault.field { a href={ "#" (field) } { (field_words(field)) ": " (fault.sentence) } }
                                    @else { (fault.sentence) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn field_words(field: &str) -> String {
    capital(&field.replace('_', " "))
}

/// How a notice looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Something to know.
    Plain,
    /// Something to be careful about.
    Warn,
}

/// A sentence or two that stand out. Announced when the page is shown after something was done.
#[allow(
    clippy::needless_pass_by_value,
    reason = "what is rendered is handed over"
)]
pub(crate) fn notice(tone: Tone, content: Markup) -> Markup {
    let warn = (tone == Tone::Warn).then_some("notice-warn");
    html! { div.notice.(warn.unwrap_or_default()) role="status" { (content) } }
}

/// A field with its label, hint and fault.
pub(crate) struct Field<'v> {
    /// Its name, and its id.
    pub(crate) name: &'v str,
    /// What it asks for.
    pub(crate) label: &'v str,
    /// What helps to fill it in.
    pub(crate) hint: Option<&'v str>,
    /// `text`, `password`, `url` …
    pub(crate) kind: &'v str,
    /// What is in it.
    pub(crate) value: &'v str,
    /// What browsers may fill in.
    pub(crate) autocomplete: &'v str,
    /// Characters at most.
    pub(crate) length_max: usize,
    /// Whether it may be left empty.
    pub(crate) optional: bool,
    /// Whether it has the focus when the page is shown.
    pub(crate) focused: bool,
    /// How it looks and how it is typed.
    pub(crate) shape: Shape,
}

/// How a field looks and how it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One line.
    Line,
    /// One line of a name that is no word: a login, an address.
    Name,
    /// One line of a code's digits.
    Digits,
    /// One line of a code's letters and digits.
    Code,
    /// Several lines.
    Lines,
}

impl Default for Field<'_> {
    fn default() -> Self {
        Self {
            name: "",
            label: "",
            hint: None,
            kind: "text",
            value: "",
            autocomplete: "off",
            length_max: 200,
            optional: false,
            focused: false,
            shape: Shape::Line,
        }
    }
}

impl Field<'_> {
    /// The field, with what `faults` says of it.
    pub(crate) fn render(&self, faults: &Faults) -> Markup {
        let fault = faults.of(self.name);
        let (hint_id, fault_id) = (
            format!("{}-hint", self.name),
            format!("{}-fault", self.name),
        );
        let described = match (self.hint.is_some(), fault.is_some()) {
            (true, true) => Some(format!("{hint_id} {fault_id}")),
            (true, false) => Some(hint_id.clone()),
            (false, true) => Some(fault_id.clone()),
            (false, false) => None,
        };
        let invalid = fault.is_some().then_some("true");
        // The summary has the focus where there are faults.
        let focused = self.focused && faults.is_empty();
        let code = matches!(self.shape, Shape::Digits | Shape::Code).then_some("code-input");
        let digits = (self.shape == Shape::Digits).then_some("numeric");
        let untouched = (self.shape != Shape::Line || self.kind == "password").then_some("none");
        html! {
            div.field {
                label for=(self.name) { (self.label) @if self.optional { span.soft.small { " (optional)" } } }
                @if let Some(hint) = self.hint { p.hint id=(hint_id) { (hint) } }
                @if self.shape == Shape::Lines {
                    textarea id=(self.name) name=(self.name) maxlength=(self.length_max) required[!self.optional] spellcheck="false"
                        autocapitalize="none" aria-describedby=[described] aria-invalid=[invalid] { "\n" (self.value) }
                } @else {
                    input id=(self.name) name=(self.name) type=(self.kind) value=[(!self.value.is_empty()).then_some(self.value)]
                        class=[code] inputmode=[digits] autocomplete=(self.autocomplete) maxlength=(self.length_max) required[!self.optional]
                        autofocus[focused] spellcheck="false" autocapitalize=[untouched] aria-describedby=[described] aria-invalid=[invalid];
                }
                @if let Some(fault) = fault { p.fault id=(fault_id) { (fault) } }
            }
        }
    }
}

/// The button that a form is for.
pub(crate) fn submit(label: &str) -> Markup {
    html! { button.button.button-primary type="submit" { (label) } }
}

/// The same, as wide as the form.
pub(crate) fn submit_wide(label: &str) -> Markup {
    html! { button.button.button-primary.button-wide type="submit" { (label) } }
}

/// The first letter of a name, as a picture beside it.
pub(crate) fn monogram(name: &str, small: bool) -> Markup {
    let letter = name
        .chars()
        .find(|character| character.is_alphanumeric())
        .map_or_else(|| "·".to_owned(), |letter| letter.to_uppercase().collect());
    let class = if small { "monogram-small" } else { "" };
    html! { span.monogram.(class) aria-hidden="true" { (letter) } }
}

/// The link back to where a page belongs.
pub(crate) fn back(href: &str, label: &str) -> Markup {
    html! { a.back href=(href) { span aria-hidden="true" { "← " } (label) } }
}

/// Something that can't be undone, folded until it is asked for.
#[allow(
    clippy::needless_pass_by_value,
    reason = "what is rendered is handed over"
)]
pub(crate) fn fold_danger(label: &str, content: Markup) -> Markup {
    html! { details.fold.fold-danger { summary { (label) } div.fold-body { (content) } } }
}

/// Something that few need, folded.
#[allow(
    clippy::needless_pass_by_value,
    reason = "what is rendered is handed over"
)]
pub(crate) fn fold(label: &str, content: Markup) -> Markup {
    html! { details.fold { summary { (label) } div.fold-body { (content) } } }
}

/// An instant: `3 March 2027, 14:00 UTC`.
pub(crate) fn time(instant: Timestamp) -> Markup {
    html! { time datetime=(instant) { (time_words(instant)) } }
}

/// A day: `3 March 2027`.
pub(crate) fn day(instant: Timestamp) -> Markup {
    let words = DateTime::<Utc>::from(instant).format("%-d %B %Y");
    html! { time datetime=(instant) { (words) } }
}

/// An instant in words: `3 March 2027, 14:00 UTC`.
pub(crate) fn time_words(instant: Timestamp) -> String {
    DateTime::<Utc>::from(instant)
        .format("%-d %B %Y, %H:%M UTC")
        .to_string()
}

/// How long ago something was, as coarsely as it is known: `today`, `yesterday`, `5 days ago`.
pub(crate) fn days_ago(instant: Timestamp, now: Timestamp) -> String {
    let day = |instant: Timestamp| DateTime::<Utc>::from(instant).date_naive();
    match (day(now) - day(instant)).num_days() {
        i64::MIN..=0 => "today".to_owned(),
        1 => "yesterday".to_owned(),
        days @ 2..=60 => format!("{days} days ago"),
        days => format!("{} months ago", days / 30),
    }
}

/// A length of time in words, rounded up: `40 seconds`, `5 minutes`, `3 hours`, `30 days`.
pub(crate) fn duration_words(duration: Duration) -> String {
    let seconds = duration.as_secs().max(1);
    let (count, unit) = match seconds {
        0..=90 => (seconds, "second"),
        91..=5_400 => (seconds.div_ceil(60), "minute"),
        5_401..=172_799 => (seconds.div_ceil(3_600), "hour"),
        _ => (seconds.div_ceil(86_400), "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// What somebody may do by a scope, as a sentence begins: `See products and variants`.
pub(crate) fn scope_words(scope: Scope) -> String {
    capital(scope.words())
}

/// The same under a heading that says whether it is seen or changed: `Products and variants`.
pub(crate) fn scope_item(scope: Scope) -> String {
    let words = scope.words();
    capital(words.strip_prefix("see ").unwrap_or(words))
}

/// Whether a scope lets an app see things and change none.
pub(crate) fn only_sees(scope: Scope) -> bool {
    scope.name().ends_with(":read")
}

/// Whether a scope gives more than a merchant may expect of one box.
pub(crate) const fn is_far_reaching(scope: Scope) -> bool {
    matches!(scope, Scope::AppsAdmin | Scope::MerchantAdmin)
}

/// What `scopes` let an app see and change, without what belongs to the box of personal data.
pub(crate) fn grouped(scopes: ScopeSet) -> [(&'static str, Vec<Scope>); 2] {
    let of = |sees: bool| {
        scopes
            .iter()
            .filter(|&scope| scope != Scope::OrdersPiiRead && only_sees(scope) == sees)
            .collect()
    };
    [("See", of(true)), ("Change", of(false))]
}

/// Scopes in plain words, to read.
pub(crate) fn scope_list(scopes: ScopeSet) -> Markup {
    html! {
        @for (heading, scopes) in grouped(scopes) {
            @if !scopes.is_empty() {
                div {
                    h3 { (heading) }
                    ul.plain-list {
                        @for scope in scopes {
                            li { (scope_item(scope)) @if is_far_reaching(scope) { " " span.tag.tag-warn { "far-reaching" } } }
                        }
                    }
                }
            }
        }
    }
}

/// A tick, for what is not to be unticked.
pub(crate) fn tick() -> Markup {
    html! {
        svg.tick viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="2.5" aria-hidden="true" focusable="false" {
            path d="M4 10.5l4 4 8-9" {}
        }
    }
}

/// A sentence for an error that a form can be sent again after. `None`: a page of its own is needed.
pub(crate) fn faults_of(error: &Error) -> Option<Faults> {
    match error {
        Error::InvalidFields(errors) => Some(Faults::of_fields(errors)),
        Error::Forbidden(sentence) => Some(Faults::general(*sentence)),
        Error::Throttled { retry_after } => Some(Faults::general(throttled_words(*retry_after))),
        Error::Changed(noun) => Some(Faults::general(format!(
            "This {noun} has changed meanwhile. Below is what it is now; please decide again."
        ))),
        _ => None,
    }
}

/// What is said to who has guessed too often.
pub(crate) fn throttled_words(retry_after: Duration) -> String {
    format!(
        "There were too many attempts. Please try again in {}.",
        duration_words(retry_after)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn time_is_said_in_words() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(
            time(at("2027-03-03T14:00:00Z")).into_string(),
            "<time datetime=\"2027-03-03T14:00:00Z\">3 March 2027, 14:00 UTC</time>"
        );
        let now = at("2027-03-03T00:30:00Z");
        for (then, words) in [
            ("2027-03-03T00:29:00Z", "today"),
            ("2027-03-04T00:29:00Z", "today"),
            ("2027-03-02T23:59:00Z", "yesterday"),
            ("2027-02-26T12:00:00Z", "5 days ago"),
            ("2026-09-03T12:00:00Z", "6 months ago"),
        ] {
            assert_eq!(days_ago(at(then), now), words);
        }
        for (seconds, words) in [
            (0, "1 second"),
            (30, "30 seconds"),
            (91, "2 minutes"),
            (7_200, "2 hours"),
            (2_592_000, "30 days"),
        ] {
            assert_eq!(duration_words(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn a_pointer_finds_its_field() {
        let errors = [
            FieldError::at("/redirectUris/1", "invalid", "must be https"),
            FieldError::at("", "invalid", "the file is empty"),
        ];
        let faults = Faults::of_fields(&errors);
        assert_eq!(
            faults.of("redirect_uris").as_deref(),
            Some("This must be https.")
        );
        assert!(
            summary(&faults)
                .into_string()
                .contains("The file is empty.")
        );
    }
}
