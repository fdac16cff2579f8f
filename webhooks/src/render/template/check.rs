//! What a template may be made of: looked over once, before the engine compiles it.
//!
//! Refused is whatever could make much of little: operators that put texts and lists together or repeat them, variables of the template's own (which would let
//! them grow step by step), lists and objects of anything but constants, calls, and comparisons of two values of the event's, which may be as long as it is.
//! And what the engine would find out only with an event at hand: variables, filters and tests that there are not.

use minijinja::{
    machinery::{
        Span,
        ast::{
            BinOpKind, CallArg, CompareOpKind, Expr, Filter, ForLoop, Spanned, Stmt, UnaryOpKind,
        },
        parse,
    },
    syntax::SyntaxConfig,
};

use super::{RenderError, filter, refused};

/// Loops and conditions inside of one another, and brackets: as much as anybody reads.
const DEPTH_MAX: usize = 24;

/// Stack for the parser, which recurses for some of what it reads without bound, as does freeing what it has made of a long chain of operators. In 16 KB of source
/// there are at most 8,000 operators, which take a kilobyte each in a build without optimisation. Reserved and not used, but by who tries it.
const STACK_BYTES: usize = 64 * 1_024 * 1_024;

/// Refuses what a template may not be made of.
pub(super) fn look_over(source: &str) -> Result<(), RenderError> {
    let looked = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let running = thread.spawn_scoped(scope, || parse_and_look(source));
        running.ok().and_then(|running| running.join().ok())
    });
    looked.unwrap_or_else(|| refuse_line(1, "it can't be read".to_owned()))
}

fn parse_and_look(source: &str) -> Result<(), RenderError> {
    let parsed = parse(source, super::NAME, SyntaxConfig::default());
    let template = parsed.map_err(|error| refused(&error))?;
    let mut look = Look {
        variables: vec!["event"],
        depth: 0,
    };
    look.statement(&template)
}

fn refuse_line<T>(line: usize, reason: String) -> Result<T, RenderError> {
    Err(RenderError::Transformation { line, reason })
}

fn refuse<T>(span: Span, reason: impl Into<String>) -> Result<T, RenderError> {
    let line = usize::from(span.start_line).max(1);
    refuse_line(line, reason.into())
}

struct Look<'a> {
    /// `event`, and those of the loops around.
    variables: Vec<&'a str>,
    depth: usize,
}

impl<'a> Look<'a> {
    fn deeper<T>(
        &mut self,
        span: Span,
        look: impl FnOnce(&mut Self) -> Result<T, RenderError>,
    ) -> Result<T, RenderError> {
        if self.depth >= DEPTH_MAX {
            return refuse(
                span,
                format!("its parts are put into one another more than {DEPTH_MAX} times"),
            );
        }
        self.depth += 1;
        let looked = look(self);
        self.depth -= 1;
        looked
    }

    fn statements(&mut self, statements: &'a [Stmt<'a>]) -> Result<(), RenderError> {
        statements.iter().try_for_each(|one| self.statement(one))
    }

    fn statement(&mut self, statement: &'a Stmt<'a>) -> Result<(), RenderError> {
        let unknown = |span: Span, tag: &str| {
            refuse(
                span,
                format!("there is no tag {tag:?} here, only \"for\" and \"if\""),
            )
        };
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            Stmt::ForLoop(each) => self.deeper(each.span(), |look| look.for_loop(each)),
            Stmt::IfCond(condition) => self.deeper(condition.span(), |look| {
                look.expression(&condition.expr)?;
                look.statements(&condition.true_body)?;
                look.statements(&condition.false_body)
            }),
            Stmt::WithBlock(with) => unknown(with.span(), "with"),
            Stmt::Set(set) => unknown(set.span(), "set"),
            Stmt::SetBlock(set) => unknown(set.span(), "set"),
            Stmt::AutoEscape(escape) => unknown(escape.span(), "autoescape"),
            Stmt::FilterBlock(filter) => unknown(filter.span(), "filter"),
            Stmt::Do(call) => unknown(call.span(), "do"),
            // Other features of the engine, should another crate have turned them on.
            #[allow(unreachable_patterns, reason = "depends on the engine's features")]
            _ => refuse_line(
                1,
                "there are no tags here but \"for\" and \"if\"".to_owned(),
            ),
        }
    }

    fn for_loop(&mut self, each: &'a Spanned<ForLoop<'a>>) -> Result<(), RenderError> {
        if each.recursive {
            return refuse(each.span(), "loops are not recursive here");
        }
        self.expression(&each.iter)?;
        let outside = self.variables.len();
        match &each.target {
            Expr::Var(variable) => self.variables.push(variable.id),
            _ => return refuse(each.span(), "a loop has one variable here"),
        }
        self.variables.push("loop");
        let looked = each
            .filter_expr
            .as_ref()
            .map_or(Ok(()), |condition| self.expression(condition))
            .and_then(|()| self.statements(&each.body));
        self.variables.truncate(outside);
        looked?;
        self.statements(&each.else_body)
    }

    fn expression(&mut self, expression: &'a Expr<'a>) -> Result<(), RenderError> {
        self.deeper(expression.span(), |look| look.within(expression))
    }

    fn within(&mut self, expression: &'a Expr<'a>) -> Result<(), RenderError> {
        let span = expression.span();
        match expression {
            Expr::Const(_) => Ok(()),
            Expr::Var(variable) if self.variables.contains(&variable.id) => Ok(()),
            Expr::Var(variable) => refuse(
                span,
                format!(
                    "there is no variable {:?}: a transformation is about \"event\"",
                    variable.id
                ),
            ),
            Expr::GetAttr(member) => self.expression(&member.expr),
            Expr::GetItem(member) => {
                self.expression(&member.expr)?;
                self.expression(&member.subscript_expr)
            }
            Expr::UnaryOp(operation) => self.expression(&operation.expr),
            Expr::BinOp(operation) => {
                match operation.op {
                    BinOpKind::ScAnd
                    | BinOpKind::ScOr
                    | BinOpKind::Sub
                    | BinOpKind::Div
                    | BinOpKind::FloorDiv
                    | BinOpKind::Rem => {}
                    BinOpKind::Eq
                    | BinOpKind::Ne
                    | BinOpKind::Lt
                    | BinOpKind::Lte
                    | BinOpKind::Gt
                    | BinOpKind::Gte => check_comparison(span, &operation.left, &operation.right)?,
                    BinOpKind::In => check_membership(span, &operation.right)?,
                    BinOpKind::Add | BinOpKind::Mul | BinOpKind::Pow | BinOpKind::Concat => {
                        return refuse(
                            span,
                            "there are no operators +, *, ** and ~ here: texts are put together by [one, other] | join",
                        );
                    }
                }
                self.expression(&operation.left)?;
                self.expression(&operation.right)
            }
            Expr::Compare(comparison) => {
                self.expression(&comparison.expr)?;
                let mut left = &comparison.expr;
                for operation in &comparison.ops {
                    match operation.op {
                        CompareOpKind::In | CompareOpKind::NotIn => {
                            check_membership(span, &operation.expr)?;
                        }
                        _ => check_comparison(span, left, &operation.expr)?,
                    }
                    self.expression(&operation.expr)?;
                    left = &operation.expr;
                }
                Ok(())
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr)?;
                self.expression(&choice.true_expr)?;
                choice
                    .false_expr
                    .as_ref()
                    .map_or(Ok(()), |other| self.expression(other))
            }
            Expr::Filter(applied) => self.filter(span, applied),
            Expr::Test(applied) => {
                if !filter::TESTS.contains(&applied.name) {
                    let known = filter::TESTS.join(", ");
                    return refuse(
                        span,
                        format!("there is no test {:?}, only {known}", applied.name),
                    );
                }
                self.expression(&applied.expr)?;
                self.arguments(span, &applied.args)
            }
            Expr::List(_) | Expr::Tuple(_) if is_constant(expression) => Ok(()),
            Expr::List(_) | Expr::Tuple(_) => refuse(
                span,
                "a list holds nothing but constants, unless it is joined: write [{{ one }}, {{ other }}]",
            ),
            Expr::Map(_) => refuse(
                span,
                "objects are written around values: {\"name\": {{ value }}}",
            ),
            Expr::Slice(_) => refuse(span, "lists and texts can't be cut here"),
            Expr::Call(_) => refuse(span, "there are no functions here"),
        }
    }

    fn filter(&mut self, span: Span, applied: &'a Filter<'a>) -> Result<(), RenderError> {
        if !filter::FILTERS.contains(&applied.name) {
            let known = filter::FILTERS.join(", ");
            return refuse(
                span,
                format!("there is no filter {:?}, only {known}", applied.name),
            );
        }
        let Some(subject) = &applied.expr else {
            return refuse(span, "a filter is applied to a value");
        };
        match subject {
            // A list of values of the event's, which goes nowhere but into one text.
            Expr::List(list) if applied.name == "join" => {
                for item in &list.items {
                    self.expression(item)?;
                }
            }
            subject => self.expression(subject)?,
        }
        self.arguments(span, &applied.args)
    }

    fn arguments(&mut self, span: Span, arguments: &'a [CallArg<'a>]) -> Result<(), RenderError> {
        for argument in arguments {
            match argument {
                CallArg::Pos(value) => self.expression(value)?,
                _ => return refuse(span, "arguments are given by place here"),
            }
        }
        Ok(())
    }
}

/// A constant that is written out, so no longer than the template.
fn is_constant(expression: &Expr<'_>) -> bool {
    match expression {
        Expr::Const(_) => true,
        Expr::UnaryOp(operation) => {
            matches!(operation.op, UnaryOpKind::Neg) && matches!(operation.expr, Expr::Const(_))
        }
        Expr::List(list) => list.items.iter().all(|item| matches!(item, Expr::Const(_))),
        Expr::Tuple(tuple) => tuple
            .items
            .iter()
            .all(|item| matches!(item, Expr::Const(_))),
        _ => false,
    }
}

/// A number or so, which takes no time to compare: a constant, what the loop knows of itself, or a length.
fn is_small(expression: &Expr<'_>) -> bool {
    match expression {
        Expr::GetAttr(member) => {
            matches!(&member.expr, Expr::Var(variable) if variable.id == "loop")
        }
        Expr::Filter(applied) => applied.name == "length",
        _ => is_constant(expression),
    }
}

fn check_comparison(span: Span, left: &Expr<'_>, right: &Expr<'_>) -> Result<(), RenderError> {
    if is_small(left) || is_small(right) {
        return Ok(());
    }
    refuse(span, "a value is compared with a constant here")
}

fn check_membership(span: Span, list: &Expr<'_>) -> Result<(), RenderError> {
    if is_constant(list) {
        return Ok(());
    }
    refuse(span, "what follows \"in\" is a list of constants here")
}
