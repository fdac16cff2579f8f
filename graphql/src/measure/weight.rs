//! Weights: how many bytes a document's names, literals and variables come to where they are used.

use std::{collections::HashMap, convert::Infallible};

use async_graphql::{
    Name, Positioned, Value, Variables,
    parser::types::{Directive, Field, OperationDefinition},
};

/// The weights of a request's variables, by name.
pub(super) type Weights = HashMap<String, u64>;

/// The weights of the variables that a request brings.
pub(super) fn of_variables(variables: &Variables) -> Weights {
    variables
        .iter()
        .map(|(name, value)| (name.to_string(), weight(value)))
        .collect()
}

/// Weighs what an operation uses.
#[derive(Debug)]
pub(super) struct Scales<'w> {
    /// Of the variables that the request brings.
    given: &'w Weights,
    /// Of the values that the operation's variables have if the request brings none.
    defaults: Weights,
}

impl<'w> Scales<'w> {
    /// For an operation, with what the request brings.
    pub(super) fn of(given: &'w Weights, operation: &OperationDefinition) -> Self {
        let definitions = operation.variable_definitions.iter();
        let defaults = definitions
            .filter_map(|definition| {
                let value = definition.node.default_value.as_ref()?;
                Some((definition.node.name.node.to_string(), weight(&value.node)))
            })
            .collect();
        Self { given, defaults }
    }

    /// A field's names, arguments and directives, without what is selected below it.
    pub(super) fn field(&self, field: &Field) -> u64 {
        let alias = field.alias.as_ref().map_or(0, |alias| alias.node.len());
        let arguments = field.arguments.iter();
        arguments
            .map(|(name, value)| {
                self.argument(&name.node, |variable| {
                    value.node.clone().into_const_with(variable)
                })
            })
            .fold(bytes(field.name.node.len() + alias), u64::saturating_add)
            .saturating_add(self.directives(&field.directives))
    }

    /// Directives with their arguments.
    pub(super) fn directives(&self, directives: &[Positioned<Directive>]) -> u64 {
        directives
            .iter()
            .flat_map(|directive| {
                let arguments = directive.node.arguments.iter();
                arguments
                    .map(|(name, value)| {
                        self.argument(&name.node, |variable| {
                            value.node.clone().into_const_with(variable)
                        })
                    })
                    .chain([bytes(directive.node.name.node.len())])
            })
            .fold(0, u64::saturating_add)
    }

    /// `literal` gives an argument's value with its variables resolved by what it is given.
    fn argument(
        &self,
        name: &str,
        literal: impl FnOnce(Resolve<'_>) -> Result<Value, Infallible>,
    ) -> u64 {
        let mut variables = 0_u64;
        let literal = literal(&mut |name| {
            let given = self.given.get(name.as_str());
            let known = given.or_else(|| self.defaults.get(name.as_str()));
            variables = variables.saturating_add(known.copied().unwrap_or_default());
            Ok(Value::Null)
        });
        let literal = literal.map_or(0, |literal| weight(&literal));
        bytes(name.len())
            .saturating_add(literal)
            .saturating_add(variables)
    }
}

/// Gives a variable's value.
type Resolve<'r> = &'r mut dyn FnMut(Name) -> Result<Value, Infallible>;

/// About how many bytes a value takes; never less than a byte an element. JSON nests 128 deep at most, literals as deep as brackets may.
fn weight(value: &Value) -> u64 {
    match value {
        Value::String(text) => bytes(text.len()) + 1,
        Value::Enum(name) => bytes(name.len()) + 1,
        Value::List(elements) => 1 + elements.iter().map(weight).sum::<u64>(),
        Value::Object(fields) => {
            1 + fields
                .iter()
                .map(|(name, value)| bytes(name.len()) + weight(value))
                .sum::<u64>()
        }
        _ => 8,
    }
}

/// A length as a weight.
pub(super) fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
