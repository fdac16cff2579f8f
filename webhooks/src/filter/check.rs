//! What a condition may be made of: looked over once, when it is compiled.
//!
//! Refused is whatever `cel` would find out only with an event at hand (variables, members of the envelope and functions that there are not), what cannot
//! be true or false, and what could make much of little: macros inside of macros, `map`, and lists and objects of anything but constants.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, SelectExpr, operators},
};

use super::FilterError;

/// Parts (operators, members, constants, calls) of a condition. A comparison of a member of a member has five.
const PARTS_MAX: usize = 256;

/// Parts inside of parts. Evaluation recurses for each, and takes 36 KB of stack for that in a build without optimisation.
const DEPTH_MAX: usize = 16;

/// What `event` has.
const EVENT_MEMBERS: [&str; 5] = ["type", "resource", "data", "occurredAt", "merchantId"];

/// What `event.resource` has.
const RESOURCE_MEMBERS: [&str; 3] = ["type", "id", "version"];

/// Functions of one argument: `double(x)`.
const CONVERSIONS: [&str; 5] = ["int", "uint", "double", "string", "bool"];

/// Methods of text: `x.contains(y)`.
const TEXT_METHODS: [&str; 3] = ["contains", "startsWith", "endsWith"];

/// Operators that make neither true nor false.
const ARITHMETIC: [&str; 6] = [
    operators::ADD,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
];

/// Operators that make true or false, and those of which it is not known.
const LOGIC: [&str; 13] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::INDEX,
    operators::IN,
    // Of the macros' making.
    operators::NOT_STRICTLY_FALSE,
];

/// What a condition costs, as far as that can be said without an event.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Cost {
    pub(super) parts: usize,
    /// Those inside of macros, which are met again for each member of a list.
    pub(super) loop_parts: usize,
    /// The longest list that is written out.
    pub(super) longest_list: usize,
    pub(super) needs_data: bool,
}

/// A place in the source, counted from 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

impl Place {
    /// The place at a byte of the source.
    pub(super) fn at(source: &str, offset: usize) -> Self {
        let before = source.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }

    /// Where a word stands first, by itself; the beginning, if nowhere: the parser we use keeps no places.
    fn of(source: &str, word: &str) -> Self {
        let is_part = |character: Option<char>| {
            character.is_some_and(|character| character.is_alphanumeric() || character == '_')
        };
        let is_word = is_part(word.chars().next());
        let found = source.match_indices(word).find(|(offset, _)| {
            if !is_word {
                return true;
            }
            let before = source.get(..*offset).unwrap_or_default();
            let after = source.get(offset + word.len()..).unwrap_or_default();
            !is_part(before.chars().next_back()) && !is_part(after.chars().next())
        });
        Self::at(source, found.map_or(0, |(offset, _)| offset))
    }

    pub(super) fn refuse(self, reason: String) -> FilterError {
        FilterError::Expression {
            line: self.line,
            column: self.column,
            reason,
        }
    }
}

/// Refuses what a condition may not be made of, and says what the rest costs.
pub(super) fn look_over(expression: &IdedExpr, source: &str) -> Result<Cost, FilterError> {
    let start = Place::at(source, 0);
    // Without recursion, because this is what bounds it.
    let mut parts: usize = 0;
    let mut waiting = vec![(expression, 1_usize)];
    while let Some((part, depth)) = waiting.pop() {
        parts += 1;
        if parts > PARTS_MAX {
            return Err(start.refuse(format!("a condition has at most {PARTS_MAX} parts")));
        }
        if depth > DEPTH_MAX {
            let reason = format!("its parts are put into one another more than {DEPTH_MAX} times");
            return Err(start.refuse(reason));
        }
        waiting.extend(inner(&part.expr).into_iter().map(|part| (part, depth + 1)));
    }
    if !may_be_true(&expression.expr) {
        return Err(start.refuse("a condition is true or false, and this is neither".to_owned()));
    }
    let mut look = Look {
        source,
        variables: Vec::new(),
        in_macro: false,
        cost: Cost {
            parts,
            ..Cost::default()
        },
    };
    look.expression(&expression.expr)?;
    Ok(look.cost)
}

/// The parts directly inside of one.
fn inner(expression: &Expr) -> Vec<&IdedExpr> {
    match expression {
        // Objects are refused as such.
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Map(_) | Expr::Struct(_) => {
            Vec::new()
        }
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect(),
        Expr::Comprehension(whole) => vec![
            &whole.iter_range,
            &whole.accu_init,
            &whole.loop_cond,
            &whole.loop_step,
            &whole.result,
        ],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
    }
}

/// Whether it is true or false as far as can be told.
fn may_be_true(expression: &Expr) -> bool {
    match expression {
        Expr::Literal(literal) => matches!(literal, LiteralValue::Boolean(_)),
        Expr::Call(call) => {
            let name = call.func_name.as_str();
            !ARITHMETIC.contains(&name)
                && name != "size"
                && (name == "bool" || !CONVERSIONS.contains(&name))
        }
        Expr::List(_) => false,
        // `filter` makes a list.
        Expr::Comprehension(comprehension) => {
            !matches!(comprehension.accu_init.expr, Expr::List(_))
        }
        _ => true,
    }
}

struct Look<'a> {
    source: &'a str,
    /// Of the macros around.
    variables: Vec<&'a str>,
    in_macro: bool,
    cost: Cost,
}

impl<'a> Look<'a> {
    fn refuse<T>(&self, word: &str, reason: String) -> Result<T, FilterError> {
        Err(Place::of(self.source, word).refuse(reason))
    }

    fn expression(&mut self, expression: &'a Expr) -> Result<(), FilterError> {
        if self.in_macro {
            self.cost.loop_parts += 1;
        }
        match expression {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => self.member(select),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::List(list) => {
                self.cost.longest_list = self.cost.longest_list.max(list.elements.len());
                if list
                    .elements
                    .iter()
                    .all(|element| matches!(element.expr, Expr::Literal(_)))
                {
                    Ok(())
                } else {
                    self.refuse("[", "a list holds nothing but constants".to_owned())
                }
            }
            Expr::Map(_) | Expr::Struct(_) => {
                self.refuse("{", "objects can't be made here".to_owned())
            }
            Expr::Unspecified => self.refuse("", "something is missing".to_owned()),
        }
    }

    fn variable(&mut self, name: &str) -> Result<(), FilterError> {
        if self.variables.contains(&name) {
            return Ok(());
        }
        if name == "event" {
            // All of it, its data included.
            self.cost.needs_data = true;
            return Ok(());
        }
        self.refuse(
            name,
            format!("there is no variable {name:?}: a condition is about \"event\""),
        )
    }

    fn member(&mut self, select: &'a SelectExpr) -> Result<(), FilterError> {
        let field = select.field.as_str();
        if self.is_event(&select.operand.expr) {
            self.known_member("event", field, &EVENT_MEMBERS)?;
            self.cost.needs_data |= field == "data";
            return Ok(());
        }
        if let Expr::Select(outer) = &select.operand.expr
            && self.is_event(&outer.operand.expr)
            && outer.field == "resource"
        {
            return self.known_member("event.resource", field, &RESOURCE_MEMBERS);
        }
        self.expression(&select.operand.expr)
    }

    fn is_event(&self, expression: &Expr) -> bool {
        matches!(expression, Expr::Ident(name) if name == "event")
            && !self.variables.contains(&"event")
    }

    fn known_member(&self, whole: &str, field: &str, known: &[&str]) -> Result<(), FilterError> {
        if known.contains(&field) {
            return Ok(());
        }
        self.refuse(
            field,
            format!(
                "{whole:?} has no member {field:?}, only {}",
                known.join(", ")
            ),
        )
    }

    fn call(&mut self, call: &'a CallExpr) -> Result<(), FilterError> {
        let name = call.func_name.as_str();
        let operands = (call.target.is_some(), call.args.len());
        let is_known = match operands {
            _ if LOGIC.contains(&name) || ARITHMETIC.contains(&name) => true,
            (true, 0) | (false, 1) if name == "size" => true,
            (false, 1) => CONVERSIONS.contains(&name),
            (true, 1) => TEXT_METHODS.contains(&name),
            _ => false,
        };
        if !is_known {
            let why = match name {
                "size" => format!("{name:?} takes one text, list or object"),
                _ if CONVERSIONS.contains(&name) => format!("{name:?} takes one value"),
                _ if TEXT_METHODS.contains(&name) => {
                    format!("{name:?} is written text.{name}(other text)")
                }
                "has" => "has() asks for a member, as in has(event.data.note)".to_owned(),
                "all" | "exists" | "exists_one" | "existsOne" | "filter" => {
                    format!("{name:?} is written list.{name}(item, condition)")
                }
                _ => format!("there is no function {name:?} here"),
            };
            return self.refuse(name, why);
        }
        for operand in call.target.as_deref().into_iter().chain(&call.args) {
            self.expression(&operand.expr)?;
        }
        Ok(())
    }

    fn comprehension(&mut self, comprehension: &'a ComprehensionExpr) -> Result<(), FilterError> {
        let name = comprehension.iter_var.as_str();
        if self.in_macro {
            return self.refuse(
                name,
                "macros such as \"exists\" can't be put into one another".to_owned(),
            );
        }
        if matches!(comprehension.accu_init.expr, Expr::List(_)) && !keeps_items(comprehension) {
            return self.refuse("map", "there is no macro \"map\" here".to_owned());
        }
        self.expression(&comprehension.iter_range.expr)?;
        self.in_macro = true;
        self.variables.push(name);
        self.variables.push(&comprehension.accu_var);
        let looked = self
            .expression(&comprehension.loop_cond.expr)
            .and_then(|()| match filter_condition(comprehension) {
                Some(condition) => self.expression(condition),
                None => self.expression(&comprehension.loop_step.expr),
            });
        self.variables.clear();
        self.in_macro = false;
        looked
    }
}

/// Whether a macro that makes a list makes it of the items as they are, which is `filter`.
fn keeps_items(comprehension: &ComprehensionExpr) -> bool {
    filter_condition(comprehension).is_some()
}

/// The condition of the macro `filter`: its step is `condition ? result + [item] : result`.
fn filter_condition(comprehension: &ComprehensionExpr) -> Option<&Expr> {
    if !matches!(comprehension.accu_init.expr, Expr::List(_)) {
        return None;
    }
    let Expr::Call(step) = &comprehension.loop_step.expr else {
        return None;
    };
    let [condition, appended, _] = step.args.as_slice() else {
        return None;
    };
    let Expr::Call(append) = &appended.expr else {
        return None;
    };
    let [_, list] = append.args.as_slice() else {
        return None;
    };
    let Expr::List(list) = &list.expr else {
        return None;
    };
    let [item] = list.elements.as_slice() else {
        return None;
    };
    let is_item = matches!(&item.expr, Expr::Ident(name) if *name == comprehension.iter_var);
    (step.func_name == operators::CONDITIONAL && is_item).then_some(&condition.expr)
}
