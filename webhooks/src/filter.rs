//! Which events an endpoint is sent: those of its types, and of these the ones that its condition is true for.
//!
//! Compiled when an endpoint is saved, so that whoever writes a filter hears at once what is wrong with it, and by the relay, which asks it before it
//! numbers an event for the endpoint. A pure function of the event without its personal part: whether an event is sent says nothing of a person, and
//! the erasure of a person changes no stream.
//!
//! A condition is an expression of CEL, the Common Expression Language, over the variable `event`:
//!
//! - `event.type`, `event.resource.type`, `event.resource.id`, `event.resource.version`, `event.occurredAt` (text, RFC 3339), `event.merchantId`;
//! - `event.data`, the resource as the API shows it, without personal data;
//! - operators of CEL, `size`, `int`, `uint`, `double`, `string`, `bool`, `contains`, `startsWith`, `endsWith`, and the macros `has`, `all`, `exists`,
//!   `exists_one` and `filter`, which are not put into one another.
//!
//! Amounts of money are text in Stoa's JSON, so they are compared as numbers by `double(event.data.total.amount) > 100.0`. Where evaluation fails (a member is
//! missing, a text is no number), the condition is not true: the event is not sent. `has(event.data.discount)` asks whether a member is there.
//!
//! Invariant: the cost is bounded, whatever is written. The source, its parts and their nesting are bounded when it is compiled, what a macro may do is
//! looked over, and an event that would be too much work for a condition is not judged by it.

use std::cell::OnceCell;

use kernel::{clock::Timestamp, id::MerchantId};
use serde_json::value::RawValue;

mod check;
mod expression;
mod value;

use expression::Expression;
use value::Shown;

/// Bytes that an event type or a pattern of them may have: as long as the API allows.
const PATTERN_BYTES_MAX: usize = 100;

/// Why a filter is refused. Its text is one sentence for whoever wrote the filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A type that is neither an event type nor a pattern of them.
    #[error(
        "{0:?} is no event type such as \"order.placed\", and no pattern such as \"order.*\" or \"*\""
    )]
    Type(String),
    /// A condition that can't be taken, with the place: line and column count from 1, columns in characters.
    #[error("{reason} (line {line}, column {column})")]
    Expression {
        /// The line.
        line: usize,
        /// The column in it.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
}

/// Why an event could not be judged. Whoever asks sends it: better one too many than one that is lost without a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterFault {
    /// The event is so large that the condition would take too long.
    #[error("the event is too large for the condition")]
    TooLarge,
    /// The event's data is not there, or is not JSON.
    #[error("the event's data can't be read")]
    Unreadable,
}

/// A pattern of event types: `order.placed`, `order.*` (everything that begins with `order.`) or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypePattern {
    /// All types.
    All,
    /// The types that begin so; ends in a full stop.
    Prefix(String),
    /// One type.
    Exact(String),
}

impl TypePattern {
    /// Reads a pattern: words of lower-case letters, digits and `_`, parted by full stops; the last may be `*`.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let refused = || FilterError::Type(text.chars().take(PATTERN_BYTES_MAX).collect());
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        if text.len() > PATTERN_BYTES_MAX {
            return Err(refused());
        }
        let (words, pattern) = match text.strip_suffix(".*") {
            _ if text == "*" => return Ok(Self::All),
            Some(words) => (words, Self::Prefix(format!("{words}."))),
            None => (text, Self::Exact(text.to_owned())),
        };
        if words.split('.').all(is_word) {
            Ok(pattern)
        } else {
            Err(refused())
        }
    }

    /// Whether an event of this type is meant.
    pub fn matches(&self, kind: &str) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => kind.starts_with(prefix.as_str()),
            Self::Exact(exact) => kind == exact,
        }
    }
}

/// Which events an endpoint is sent. By default all.
#[derive(Debug, Default)]
pub struct Filter {
    /// `None`: all.
    types: Option<Vec<TypePattern>>,
    condition: Option<Expression>,
}

impl Filter {
    /// A filter of patterns (`None`: all types) and a condition in CEL (`None`: no condition).
    pub fn compile(
        event_types: Option<&[String]>,
        expression: Option<&str>,
    ) -> Result<Self, FilterError> {
        let parse = |types: &[String]| types.iter().map(|kind| TypePattern::parse(kind)).collect();
        Ok(Self {
            types: event_types.map(parse).transpose()?,
            condition: expression.map(Expression::compile).transpose()?,
        })
    }

    /// Whether events of this type may pass; cheap, and asked before anything of the event is read.
    pub fn wants_type(&self, kind: &str) -> bool {
        self.types
            .as_ref()
            .is_none_or(|types| types.iter().any(|pattern| pattern.matches(kind)))
    }

    /// Whether the condition looks at `event.data`: if not, events can be judged without it.
    pub fn needs_data(&self) -> bool {
        self.condition.as_ref().is_some_and(Expression::needs_data)
    }

    /// Whether the event is sent. What is wrong with the event for this condition (a missing member, another type) is `false`; a fault is for events that
    /// can't be judged, and counts as `true`.
    pub(crate) fn matches(&self, event: &FilterInput<'_>) -> Result<bool, FilterFault> {
        if !self.wants_type(event.facts.kind) {
            return Ok(false);
        }
        let Some(condition) = &self.condition else {
            return Ok(true);
        };
        condition.evaluate(event.shown(condition.needs_data())?)
    }
}

/// What a filter may see of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The type: `order.placed`.
    pub(crate) kind: &'a str,
    pub(crate) resource_kind: &'a str,
    pub(crate) resource_id: &'a str,
    pub(crate) resource_version: i64,
    pub(crate) merchant: MerchantId,
    pub(crate) occurred_at: Timestamp,
    /// Without the personal part. `None` if no filter asks for it ([`Filter::needs_data`]).
    pub(crate) data: Option<&'a RawValue>,
}

/// An event as filters see it. Made once per event and shown to many filters: its data is parsed when the first one asks for it, and then no more.
#[derive(Debug)]
pub(crate) struct FilterInput<'a> {
    facts: Facts<'a>,
    without_data: OnceCell<Shown>,
    with_data: OnceCell<Result<Shown, FilterFault>>,
}

impl<'a> FilterInput<'a> {
    /// The event for filters.
    pub(crate) fn new(facts: Facts<'a>) -> Self {
        Self {
            facts,
            without_data: OnceCell::new(),
            with_data: OnceCell::new(),
        }
    }

    fn shown(&self, with_data: bool) -> Result<&Shown, FilterFault> {
        if !with_data {
            return Ok(self
                .without_data
                .get_or_init(|| Shown::new(&self.facts, None)));
        }
        let parsed = self.with_data.get_or_init(|| {
            let data = self.facts.data.ok_or(FilterFault::Unreadable)?;
            let parsed =
                serde_json::from_str(data.get()).map_err(|_unreadable| FilterFault::Unreadable)?;
            Ok(Shown::new(&self.facts, Some((parsed, data.get().len()))))
        });
        parsed.as_ref().map_err(|fault| *fault)
    }
}

#[cfg(test)]
mod tests;
