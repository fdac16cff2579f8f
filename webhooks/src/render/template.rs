//! Transformations: a template of the receiver's own makes the body out of the event.
//!
//! Jinja by the crate `minijinja`, of which little is let in: `{{ value }}`, `{% for %}` and `{% if %}` over the variable `event`, comparisons with constants, a handful of filters.
//! Every value that is put out is JSON: `{{ event.type }}` writes `"order.placed"` with its quotes, so nothing that a customer wrote into an order can break out
//! of its place. Text is put together by `{{ ["Order ", event.data.number] | join }}`. What is missing is `null`.
//!
//! Invariant: the cost is bounded, whatever is written. What could make much of little is refused when the template is compiled (see `check`); instructions are
//! counted by the engine, the bytes that filters make by us, and the output ends at its bound.

use std::io;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde::de::IgnoredAny;

use super::RenderError;

mod check;
mod filter;

/// Bytes of a template: a long page.
const SOURCE_BYTES_MAX: usize = 16 * 1_024;

/// Bytes of what a template makes: as much as receivers commonly take.
const OUTPUT_BYTES_MAX: usize = 256 * 1_024;

/// Instructions of the engine for one event: an order of a thousand lines with ten members each takes about half. Some milliseconds.
const FUEL: u64 = 50_000;

/// The name under which the engine knows it. Nobody sees it.
const NAME: &str = "transformation";

/// A template that was compiled.
#[derive(Debug)]
pub(super) struct Template(Environment<'static>);

/// Why there is no body: the attempt has failed, with the error `transformation`. Its text is for the receiver's people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransformationError {
    /// The template met something that it can't handle; the line counts from 1.
    #[error("the transformation failed: {reason} (line {line})")]
    Failed {
        /// The line of the template.
        line: usize,
        /// What happened there.
        reason: String,
    },
    /// It took too long.
    #[error("the transformation took more than {FUEL} steps")]
    TooLong,
    /// It made too much.
    #[error("the transformation made more than {OUTPUT_BYTES_MAX} bytes")]
    TooLarge,
    /// What it made is not JSON.
    #[error("what the transformation made is not JSON: {reason}")]
    NotJson {
        /// What the parser says, with the place in the output.
        reason: String,
    },
}

impl Template {
    pub(super) fn compile(source: &str) -> Result<Self, RenderError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(RenderError::Transformation {
                line: 1,
                reason: format!("a transformation has at most {SOURCE_BYTES_MAX} bytes"),
            });
        }
        // Before the engine compiles it, because that computes what is constant.
        check::look_over(source)?;
        let mut environment = Environment::empty();
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_auto_escape_callback(|_| AutoEscape::Json);
        filter::add(&mut environment);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| refused(&error))?;
        Ok(Self(environment))
    }

    /// What the template makes of an event, given as JSON.
    pub(super) fn render(&self, event: &[u8]) -> Result<Vec<u8>, TransformationError> {
        let not_json = |error: serde_json::Error| TransformationError::NotJson {
            reason: error.to_string(),
        };
        let event: minijinja::Value = serde_json::from_slice(event).map_err(not_json)?;
        let root = minijinja::Value::from_pairs([("event", event)]);
        let mut output = Bounded(Vec::new());
        let rendered = self
            .0
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(root, &mut output).map(|_| ()));
        rendered.map_err(|error| failed(&error))?;
        serde_json::from_slice::<IgnoredAny>(&output.0).map_err(not_json)?;
        Ok(output.0)
    }
}

/// An output that ends at its bound.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > OUTPUT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn refused(error: &Error) -> RenderError {
    RenderError::Transformation {
        line: error.line().unwrap_or(1),
        reason: reason(error),
    }
}

fn failed(error: &Error) -> TransformationError {
    match error.kind() {
        ErrorKind::OutOfFuel => TransformationError::TooLong,
        ErrorKind::WriteFailure => TransformationError::TooLarge,
        _ if error.detail() == Some(filter::TOO_LARGE) => TransformationError::TooLarge,
        _ => TransformationError::Failed {
            line: error.line().unwrap_or(1),
            reason: reason(error),
        },
    }
}

fn reason(error: &Error) -> String {
    let text = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
