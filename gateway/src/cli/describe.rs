//! `stoa describe`: what is generated from the code, and committed.

use std::{collections::BTreeMap, fmt::Write};

use clap::ValueEnum;
use kernel::problem::ProblemType;

use super::{CommandResult, say};

/// A description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    /// The OpenAPI 3.1 document, as JSON.
    Openapi,
    /// The GraphQL schema, in its own language.
    Graphql,
    /// The kinds of problems, as Markdown.
    Errors,
}

/// Prints it.
pub(super) fn run(what: What) -> CommandResult {
    match what {
        What::Openapi => say(serde_json::to_string_pretty(&crate::openapi::document())?),
        What::Graphql => say(graphql::sdl().trim_end()),
        What::Errors => say(errors().trim_end()),
    }
    Ok(())
}

/// docs/errors.md.
fn errors() -> String {
    let mut by_status: BTreeMap<(u16, &str), &ProblemType> = BTreeMap::new();
    for kind in crate::problem_types() {
        by_status.insert((kind.status, kind.slug), kind);
    }
    let mut text = String::from(
        "# Errors\n\n\
         Every error of the REST API is `application/problem+json` (RFC 9457): `type` is `urn:stoa:problem:` and one of the slugs below, `detail` says what \
         happened this time, `requestId` finds it in our logs, and `errors` names every field that is wrong. In GraphQL the slug is the error's \
         `extensions.code`. The token endpoint answers as RFC 6749, section 5.2, has it.\n\n\
         | status | slug | what it says | what to do |\n|---|---|---|---|\n",
    );
    for kind in by_status.values() {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {} |",
            kind.status, kind.slug, kind.title, kind.advice
        );
    }
    text
}
