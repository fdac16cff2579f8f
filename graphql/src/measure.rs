//! Measuring: what a document would cost, before anything of it is validated or executed.
//!
//! [`crate::limits`] says what costs how much. A fragment is measured once for each number of elements that its lists may have, and every sum saturates:
//! fragments that double one another a thousand times over are measured in a blink. Fields that the schema does not have are measured too, as lists;
//! validation refuses them later.

use std::{collections::HashMap, convert::Infallible};

use async_graphql::{
    Pos, Value, Variables,
    parser::types::{
        ExecutableDocument, Field, OperationDefinition, OperationType, Selection, SelectionSet,
    },
};
use kernel::{
    page::{LIMIT_DEFAULT, LIMIT_MAX},
    problem::Problem,
};

use crate::{
    fault::{INVALID_QUERY, QUERY_TOO_DEEP, request_error, shortened},
    limits::{
        DEPTH_MAX, INTROSPECTION_DEPTH_MAX, INTROSPECTION_LISTS_MAX, LIST_ELEMENTS_ASSUMED,
        MUTATION_COST, NESTING_MAX, SELECTIONS_MAX, USED_BYTES_MAX,
    },
    shape::{Shape, TypeShape},
};

mod chosen;
mod weight;

use chosen::{choose, required_variables};
use weight::{Scales, Weights, bytes};

/// What an operation is and costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    /// What it costs.
    pub(crate) cost: u64,
    /// Whether it is a mutation.
    pub(crate) mutation: bool,
    /// The document's fields that ask for type names, by their positions.
    pub(crate) type_names: HashMap<Pos, TypeNames>,
}

/// How often `__typename` stands in a selection set, with fragments spread. The engine resolves it without a word to anybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TypeNames {
    /// How often.
    pub(crate) values: u64,
    /// What these are to the answer.
    pub(crate) bytes: u64,
}

/// Bytes that a type's name has at most.
const TYPE_NAME_BYTES: u64 = 24;

/// The names under which the root types go.
const QUERY: &str = "Query";
const MUTATION: &str = "Mutation";
const SUBSCRIPTION: &str = "Subscription";

/// Measures the operation of `document` that would be executed, and refuses what can't be executed at all: no such operation, cycles of fragments,
/// and more depth, nesting or fields than any operation may have.
pub(crate) fn measure(
    shape: &Shape,
    document: &ExecutableDocument,
    operation_name: Option<&str>,
    variables: &Variables,
) -> Result<Measured, async_graphql::ServerError> {
    let chosen = choose(document, operation_name).map_err(|problem| request_error(problem, &[]))?;
    let given = weight::of_variables(variables);
    let none = Weights::new();
    let mut measured = None;
    let mut selections = 0_u64;
    let mut used = 0_u64;
    let mut type_names = HashMap::new();
    // The others are not executed, but validation walks through them.
    for (_, operation) in document.operations.iter() {
        let executed = std::ptr::eq(operation, chosen);
        let mut measuring = Measuring {
            shape,
            document,
            operation: &operation.node,
            variables,
            // Validation copies the request's variables for the operation that they are for, and for no other.
            scales: Scales::of(if executed { &given } else { &none }, &operation.node),
            fragments: HashMap::new(),
            type_names: HashMap::new(),
        };
        let extent = measuring.operation()?;
        type_names.extend(measuring.type_names);
        selections = selections.saturating_add(extent.selections);
        if selections > SELECTIONS_MAX {
            let detail = format!(
                "The document has more than {SELECTIONS_MAX} fields once its fragments are spread."
            );
            return Err(request_error(Problem::new(&INVALID_QUERY, detail), &[]));
        }
        used = used.saturating_add(extent.used);
        if used > USED_BYTES_MAX {
            let detail = "The document's names and literals, or its variables, are too large to be used this often.";
            return Err(request_error(Problem::new(&INVALID_QUERY, detail), &[]));
        }
        if executed {
            required_variables(&operation.node, variables)
                .map_err(|problem| request_error(problem, &[]))?;
            measured = Some((extent.cost, operation.node.ty == OperationType::Mutation));
        }
    }
    let (cost, mutation) = measured.ok_or_else(|| {
        request_error(
            Problem::new(&INVALID_QUERY, "The document has no operation."),
            &[],
        )
    })?;
    Ok(Measured {
        cost,
        mutation,
        type_names,
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
    /// Bytes of names, literals and variables, each as often as it is used.
    used: u64,
    /// Of the set itself, with fragments spread.
    type_names: TypeNames,
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
            used: self.used.saturating_add(other.used),
            type_names: TypeNames {
                values: self
                    .type_names
                    .values
                    .saturating_add(other.type_names.values),
                bytes: self.type_names.bytes.saturating_add(other.type_names.bytes),
            },
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
    scales: Scales<'d>,
    /// `None` while it is being measured: whoever meets it then has found a cycle.
    fragments: HashMap<Spread<'d>, Option<Extent>>,
    type_names: HashMap<Pos, TypeNames>,
}

type Refused = async_graphql::ServerError;

impl<'d> Measuring<'d> {
    fn operation(&mut self) -> Result<Extent, Refused> {
        let (name, field_cost) = match self.operation.ty {
            OperationType::Mutation => (MUTATION, MUTATION_COST),
            OperationType::Query => (QUERY, 0),
            // For each event.
            OperationType::Subscription => (SUBSCRIPTION, 0),
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
        let directives = self.scales.directives(&self.operation.directives);
        extent.used = extent.used.saturating_add(directives);
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
            let mut extent = match &selection.node {
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
            extent.used = extent.used.saturating_add(match &selection.node {
                Selection::Field(field) => self.scales.field(&field.node),
                Selection::InlineFragment(fragment) => {
                    self.scales.directives(&fragment.node.directives)
                }
                Selection::FragmentSpread(spread) => bytes(spread.node.fragment_name.node.len())
                    .saturating_add(self.scales.directives(&spread.node.directives)),
            });
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
                let detail = format!("The fragment `{}` is part of itself.", shortened(name));
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
            used: below.used.saturating_mul(times),
            type_names: self.type_names(field, below),
            ..below
        })
    }

    /// Notes how many type names are asked for below a field, and says whether it asks for one itself.
    fn type_names(&mut self, field: &Field, below: Extent) -> TypeNames {
        if below.type_names != TypeNames::default() {
            self.type_names.insert(field.name.pos, below.type_names);
        }
        if field.name.node != "__typename" {
            return TypeNames::default();
        }
        TypeNames {
            values: 1,
            bytes: TYPE_NAME_BYTES.saturating_add(bytes(field.response_key().node.len())),
        }
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
            used: below.used.saturating_mul(times),
            type_names: self.type_names(field, below),
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
