//! The operation that a request would execute, and whether it has the variables for it.

use async_graphql::{
    Positioned, Value, Variables,
    parser::types::{DocumentOperations, ExecutableDocument, OperationDefinition},
};
use kernel::problem::Problem;

use crate::fault::{INVALID_QUERY, shortened};

/// The operation of `document` that goes by `name`, or its only one.
pub(super) fn choose<'d>(
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
            format!("The document has no operation {:?}.", shortened(name)),
        )),
    }
}

/// The engine would notice a missing variable only when a field asks for it, with others executed already.
pub(super) fn required_variables(
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
            shortened(&definition.name.node),
            shortened(&definition.var_type.node.to_string())
        );
        Err(Problem::new(&INVALID_QUERY, detail))
    })
}
