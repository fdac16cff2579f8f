//! Measuring: what a document would cost, before anything of it is validated or executed.
//!
//! [`crate::limits`] says what costs how much. A fragment is measured once for each number of elements that its lists may have, and every sum saturates:
//! fragments that double one another a thousand times over are measured in a blink. Fields that the schema does not have are measured too, as lists;
//! validation refuses them later.

use std::{collections::HashMap, convert::Infallible};

use async_graphql::{
    Positioned, Value, Variables,
    parser::types::{
        DocumentOperations, ExecutableDocument, Field, OperationDefinition, OperationType,
        Selection, SelectionSet,
    },
};
use kernel::{
    page::{LIMIT_DEFAULT, LIMIT_MAX},
    problem::Problem,
};

use crate::{
    fault::{INVALID_QUERY, QUERY_TOO_DEEP, request_error},
    limits::{
        DEPTH_MAX, INTROSPECTION_DEPTH_MAX, INTROSPECTION_LISTS_MAX, LIST_ELEMENTS_ASSUMED,
        MUTATION_COST, NESTING_MAX, SELECTIONS_MAX,
    },
    shape::{Shape, TypeShape},
};

/// What an operation is and costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measured {
    /// What it costs.
    pub(crate) cost: u64,
    /// Whether it is a mutation.
    pub(crate) mutation: bool,
}

/// The names under which the root types go.
const QUERY: &str = "Query";
const MUTATION: &str = "Mutation";

/// Measures the operation of `document` that would be executed, and refuses what can't be executed at all: no such operation, cycles of fragments,
/// and more depth, nesting or fields than any operation may have.
pub(crate) fn measure(
    shape: &Shape,
    document: &ExecutableDocument,
    operation_name: Option<&str>,
    variables: &Variables,
) -> Result<Measured, async_graphql::ServerError> {
    let chosen = choose(document, operation_name).map_err(|problem| request_error(problem, &[]))?;
    let mut measured = None;
    let mut selections = 0_u64;
    // The others are not executed, but validation walks through them.
    for (_, operation) in document.operations.iter() {
        let mut measuring = Measuring {
            shape,
            document,
            operation: &operation.node,
            variables,
            fragments: HashMap::new(),
        };
        let extent = measuring.operation()?;
        selections = selections.saturating_add(extent.selections);
        if selections > SELECTIONS_MAX {
            let detail = format!(
                "The document has more than {SELECTIONS_MAX} fields once its fragments are spread."
            );
            return Err(request_error(Problem::new(&INVALID_QUERY, detail), &[]));
        }
        if std::ptr::eq(operation, chosen) {
            required_variables(&operation.node, variables)
                .map_err(|problem| request_error(problem, &[]))?;
            measured = Some(Measured {
                cost: extent.cost,
                mutation: operation.node.ty == OperationType::Mutation,
            });
        }
    }
    measured.ok_or_else(|| {
        request_error(
            Problem::new(&INVALID_QUERY, "The document has no operation."),
            &[],
        )
    })
}

fn choose<'d>(
    document: &'d ExecutableDocument,
    name: Option<&str>,
) -> Result<&'d Positioned<OperationDefinition>, Problem> {
    match (&document.operations, name) {
        (DocumentOperations::Single(operation), None) => Ok(operation),
        (DocumentOperations::Multiple(operations), None) if operations.len() == 1 => operations
            .values()
            .next()
            .ok_or_else(|| Problem::new(&INVALID_QUERY, "The document has no operation.")),
        (DocumentOperations::Multiple(_), None) => Err(Problem::new(
            &INVALID_QUERY,
            "The document has several operations: `operationName` must say which.",
        )),
        (DocumentOperations::Multiple(operations), Some(name)) if operations.contains_key(name) => {
            operations
                .get(name)
                .ok_or_else(|| Problem::new(&INVALID_QUERY, "The document has no operation."))
        }
        (_, Some(name)) => Err(Problem::new(
            &INVALID_QUERY,
            format!("The document has no operation {name:?}."),
        )),
    }
}

/// The engine would notice a missing variable only when a field asks for it, with others executed already.
fn required_variables(
    operation: &OperationDefinition,
    variables: &Variables,
) -> Result<(), Problem> {
    let missing = operation
        .variable_definitions
        .iter()
        .map(|definition| &definition.node)
        .find(|definition| {
            let given = variables
                .get(&definition.name.node)
                .or(definition.default_value.as_ref().map(|value| &value.node));
            !definition.var_type.node.nullable && given.is_none_or(|value| *value == Value::Null)
        });
    missing.map_or(Ok(()), |definition| {
        let detail = format!(
            "The variable `${}` must be given: it is `{}`.",
            definition.name.node, definition.var_type.node
        );
        Err(Problem::new(&INVALID_QUERY, detail))
    })
}

/// How much a selection set is.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    cost: u64,
    /// The fields of the set itself, with fragments spread.
    fields: u64,
    /// These and the fields below them, multiplied by nothing.
    selections: u64,
    /// Fields below one another.
    depth: u32,
    /// Selection sets below one another, fragments included.
    nesting: u32,
    /// Under `__schema` and `__type`: lists of members below one another.
    lists: u32,
}

impl Extent {
    fn beside(self, other: Self) -> Self {
        Self {
            cost: self.cost.saturating_add(other.cost),
            fields: self.fields.saturating_add(other.fields),
            selections: self.selections.saturating_add(other.selections),
            depth: self.depth.max(other.depth),
            nesting: self.nesting.max(other.nesting),
            lists: self.lists.max(other.lists),
        }
    }
}

/// What a selection set is of.
#[derive(Debug, Clone, Copy)]
enum Parent<'s> {
    /// A type of the schema, or one that it does not have.
    Type(Option<&'s TypeShape>),
    /// The schema's description of itself.
    Introspection,
}

/// A fragment, the elements of its lists, and whether it lies in an introspection.
type Spread<'d> = (&'d str, u64, bool);

struct Measuring<'d> {
    shape: &'d Shape,
    document: &'d ExecutableDocument,
    operation: &'d OperationDefinition,
    variables: &'d Variables,
    /// `None` while it is being measured: whoever meets it then has found a cycle.
    fragments: HashMap<Spread<'d>, Option<Extent>>,
}

type Refused = async_graphql::ServerError;

impl<'d> Measuring<'d> {
    fn operation(&mut self) -> Result<Extent, Refused> {
        let (name, field_cost) = match self.operation.ty {
            OperationType::Mutation => (MUTATION, MUTATION_COST),
            OperationType::Query | OperationType::Subscription => (QUERY, 0),
        };
        let parent = Parent::Type(self.shape.fields(name));
        let mut extent = self.selection_set(
            &self.operation.selection_set.node,
            parent,
            LIST_ELEMENTS_ASSUMED,
            1,
        )?;
        extent.cost = extent
            .cost
            .saturating_add(extent.fields.saturating_mul(field_cost));
        if extent.depth > DEPTH_MAX {
            let detail = format!(
                "The query goes {} fields deep; {DEPTH_MAX} are allowed.",
                extent.depth
            );
            let further = [
                ("depth", u64::from(extent.depth)),
                ("limit", u64::from(DEPTH_MAX)),
            ];
            return Err(request_error(
                Problem::new(&QUERY_TOO_DEEP, detail),
                &further,
            ));
        }
        Ok(extent)
    }

    /// `elements` is how many a list among the fields has.
    fn selection_set(
        &mut self,
        set: &'d SelectionSet,
        parent: Parent<'d>,
        elements: u64,
        level: u32,
    ) -> Result<Extent, Refused> {
        nesting(level)?;
        let mut sum = Extent::default();
        for selection in &set.items {
            let extent = match &selection.node {
                Selection::Field(field) => self.field(&field.node, parent, elements, level)?,
                Selection::InlineFragment(fragment) => {
                    let condition = fragment
                        .node
                        .type_condition
                        .as_ref()
                        .map(|condition| condition.node.on.node.as_str());
                    let parent = self.narrowed(parent, condition);
                    self.selection_set(
                        &fragment.node.selection_set.node,
                        parent,
                        elements,
                        level + 1,
                    )?
                }
                Selection::FragmentSpread(spread) => self.spread(
                    spread.node.fragment_name.node.as_str(),
                    parent,
                    elements,
                    level,
                )?,
            };
            sum = sum.beside(extent);
        }
        sum.nesting += 1;
        Ok(sum)
    }

    fn narrowed(&self, parent: Parent<'d>, condition: Option<&str>) -> Parent<'d> {
        match (parent, condition) {
            (Parent::Type(_), Some(name)) => Parent::Type(self.shape.fields(name)),
            (parent, _) => parent,
        }
    }

    fn spread(
        &mut self,
        name: &'d str,
        parent: Parent<'d>,
        elements: u64,
        level: u32,
    ) -> Result<Extent, Refused> {
        // Validation will refuse a spread of nothing.
        let Some(fragment) = self.document.fragments.get(name) else {
            return Ok(Extent {
                cost: 1,
                fields: 1,
                selections: 1,
                ..Extent::default()
            });
        };
        let key = (name, elements, matches!(parent, Parent::Introspection));
        match self.fragments.get(&key) {
            Some(Some(known)) => {
                nesting(level + known.nesting)?;
                Ok(*known)
            }
            Some(None) => {
                let detail = format!("The fragment `{name}` is part of itself.");
                Err(request_error(Problem::new(&INVALID_QUERY, detail), &[]))
            }
            None => {
                self.fragments.insert(key, None);
                let parent = self.narrowed(
                    parent,
                    Some(fragment.node.type_condition.node.on.node.as_str()),
                );
                let extent = self.selection_set(
                    &fragment.node.selection_set.node,
                    parent,
                    elements,
                    level + 1,
                )?;
                self.fragments.insert(key, Some(extent));
                Ok(extent)
            }
        }
    }

    fn field(
        &mut self,
        field: &'d Field,
        parent: Parent<'d>,
        elements: u64,
        level: u32,
    ) -> Result<Extent, Refused> {
        let name = field.name.node.as_str();
        let children = &field.selection_set.node;
        let begins = matches!(parent, Parent::Type(_)) && matches!(name, "__schema" | "__type");
        if begins || matches!(parent, Parent::Introspection) {
            return self.introspection(field, begins, level);
        }
        let Parent::Type(fields) = parent else {
            return Ok(Extent::default());
        };
        let shape = fields.and_then(|fields| fields.get(name));
        let below = if children.items.is_empty() {
            Extent::default()
        } else {
            let elements_below = match shape {
                Some(shape) if shape.connection => self.first(field),
                _ => LIST_ELEMENTS_ASSUMED,
            };
            let of = shape.and_then(|shape| self.shape.fields(&shape.of));
            self.selection_set(children, Parent::Type(of), elements_below, level + 1)?
        };
        let times = if shape.is_none_or(|shape| shape.list) {
            elements
        } else {
            1
        };
        Ok(Extent {
            cost: below.cost.saturating_mul(times).saturating_add(1),
            fields: 1,
            selections: below.selections.saturating_add(1),
            depth: below.depth.saturating_add(1),
            ..below
        })
    }

    /// A field under `__schema` or `__type`, or one of these themselves: what lies below has a depth of its own, which does not count for the query's.
    fn introspection(
        &mut self,
        field: &'d Field,
        begins: bool,
        level: u32,
    ) -> Result<Extent, Refused> {
        let children = &field.selection_set.node;
        let below = if children.items.is_empty() {
            Extent::default()
        } else {
            self.selection_set(
                children,
                Parent::Introspection,
                LIST_ELEMENTS_ASSUMED,
                level + 1,
            )?
        };
        let name = field.name.node.as_str();
        let members = matches!(
            name,
            "fields" | "inputFields" | "interfaces" | "possibleTypes"
        );
        let list = members || matches!(name, "types" | "args" | "enumValues" | "directives");
        let lists = below.lists + u32::from(members);
        let depth = below.depth.saturating_add(1);
        if depth > INTROSPECTION_DEPTH_MAX || lists > INTROSPECTION_LISTS_MAX {
            let detail = format!(
                "An introspection may go {INTROSPECTION_DEPTH_MAX} fields deep, and through {INTROSPECTION_LISTS_MAX} lists of fields or types."
            );
            let further = [
                ("depth", u64::from(depth)),
                ("limit", u64::from(INTROSPECTION_DEPTH_MAX)),
            ];
            return Err(request_error(
                Problem::new(&QUERY_TOO_DEEP, detail),
                &further,
            ));
        }
        let times = if list { LIST_ELEMENTS_ASSUMED } else { 1 };
        Ok(Extent {
            cost: below.cost.saturating_mul(times).saturating_add(1),
            fields: 1,
            selections: below.selections.saturating_add(1),
            depth: if begins { 1 } else { depth },
            lists: if begins { 0 } else { lists },
            nesting: below.nesting,
        })
    }

    /// How many elements a connection is asked for. What is no number, or too large, is refused when the field is resolved, and measured as a full page.
    fn first(&self, field: &Field) -> u64 {
        let value = field.get_argument("first").map(|value| {
            let resolved = value.node.clone().into_const_with(|name| {
                Ok::<_, Infallible>(self.variable(&name).unwrap_or_default())
            });
            resolved.unwrap_or_default()
        });
        let full = u64::from(LIMIT_MAX);
        match value {
            None | Some(Value::Null) => u64::from(LIMIT_DEFAULT),
            Some(Value::Number(number)) => {
                number.as_u64().map_or(full, |first| first.clamp(1, full))
            }
            Some(_) => full,
        }
    }

    fn variable(&self, name: &str) -> Option<Value> {
        let given = self.variables.get(name).cloned();
        given.or_else(|| {
            let definitions = &self.operation.variable_definitions;
            let definition = definitions
                .iter()
                .find(|definition| definition.node.name.node == name)?;
            definition
                .node
                .default_value
                .as_ref()
                .map(|value| value.node.clone())
        })
    }
}

fn nesting(level: u32) -> Result<(), Refused> {
    if level <= NESTING_MAX {
        return Ok(());
    }
    let detail = format!("Selections and fragments may be nested {NESTING_MAX} deep at most.");
    let further = [
        ("depth", u64::from(level)),
        ("limit", u64::from(NESTING_MAX)),
    ];
    Err(request_error(
        Problem::new(&QUERY_TOO_DEEP, detail),
        &further,
    ))
}

#[cfg(test)]
mod tests;
