//! A condition: compiled once, looked over, and evaluated by the crate `cel`.
//!
//! Of the crate's two parsers this uses the hand-written one, which takes little stack; nesting is bounded before it and again after it.

use std::sync::{Arc, LazyLock};

use cel::{
    Context, Env, IdedExpr, Value,
    common::{
        types::CelBool,
        value::{CowVal, Val},
    },
    context::VariableResolver,
    parser::PrattParser,
};

use super::{
    FilterError, FilterFault, check,
    check::{Cost, Place},
    value::Shown,
};

/// Bytes of source: some twenty comparisons. What is longer belongs into the receiver's code.
pub(super) const SOURCE_BYTES_MAX: usize = 2_048;

/// Brackets inside of brackets, in the source. Ordinary conditions have two or three; the parser recurses for each.
const BRACKETS_MAX: u16 = 16;

/// Bytes that one event costs at most to look at, over all parts of the condition and all turns of its macros. A condition that compares all of an event with
/// itself in each turn takes about a second of that, ordinary ones a thousandth: they look at few bytes in each part. A hundred lines in an event of 50 KB, looked at by a
/// macro with ten parts, are a fifth.
const WORK_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The functions and operators that `cel` knows. One for all, because making it takes longer than most evaluations.
static ENVIRONMENT: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// A condition that was compiled.
#[derive(Debug)]
pub(super) struct Expression {
    expression: IdedExpr,
    cost: Cost,
}

impl Expression {
    pub(super) fn compile(source: &str) -> Result<Self, FilterError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(FilterError::Expression {
                line: 1,
                column: 1,
                reason: format!("a condition has at most {SOURCE_BYTES_MAX} bytes"),
            });
        }
        check_brackets(source)?;
        let parsed = PrattParser::new()
            .max_recursion_depth(BRACKETS_MAX.saturating_mul(2))
            .parse(source);
        let expression = parsed.map_err(|errors| {
            let first = errors.errors.first();
            let (line, column) = first.map_or((1, 1), |error| error.pos);
            FilterError::Expression {
                line: usize::try_from(line).unwrap_or(1).max(1),
                column: usize::try_from(column).unwrap_or(1).max(1),
                reason: first.map_or_else(
                    || "it is no expression".to_owned(),
                    |error| tidy(&error.msg),
                ),
            }
        })?;
        let cost = check::look_over(&expression, source)?;
        Ok(Self { expression, cost })
    }

    pub(super) fn needs_data(&self) -> bool {
        self.cost.needs_data
    }

    /// Whether the condition is true of the event.
    pub(super) fn evaluate(&self, shown: &Shown) -> Result<bool, FilterFault> {
        let turns = shown.longest.max(self.cost.longest_list);
        let parts = self
            .cost
            .loop_parts
            .saturating_mul(turns)
            .saturating_add(self.cost.parts);
        if parts.saturating_mul(shown.bytes) > WORK_BYTES_MAX {
            return Err(FilterFault::TooLarge);
        }
        let root = Root(shown.event.as_ref());
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(&root);
        let result = Value::resolve_val(&self.expression, &context);
        Ok(result.is_ok_and(|value| {
            value
                .as_ref()
                .downcast_ref::<CelBool>()
                .is_some_and(|value| *value.inner())
        }))
    }
}

/// The one variable, lent and not copied.
struct Root<'a>(&'a dyn Val);

impl VariableResolver for Root<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        (variable == "event").then_some(CowVal::Borrowed(self.0))
    }
}

/// Refuses what is nested deeply, before a parser recurses for it. Brackets in text count too, which is of no account.
fn check_brackets(source: &str) -> Result<(), FilterError> {
    let mut depth: u16 = 0;
    for (offset, character) in source.char_indices() {
        match character {
            '(' | '[' | '{' => depth = depth.saturating_add(1),
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > BRACKETS_MAX {
            let reason =
                format!("brackets are put into one another more than {BRACKETS_MAX} times");
            return Err(Place::at(source, offset).refuse(reason));
        }
    }
    Ok(())
}

/// A parser's message as a part of our sentence.
fn tidy(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default().trim();
    let message = message.trim_start_matches("Syntax error: ");
    format!("it can't be read: {message}")
}
