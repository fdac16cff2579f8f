//! Arguments: inputs read as REST reads its bodies, and ids that may be of nothing.

use std::borrow::Cow;

use async_graphql::{InputType, InputValueResult, Value, registry::Registry};
use kernel::{
    id::{Id, Kind},
    problem::{self, FieldError, Problem},
    validation::{self, JsonError, Validate},
};
use serde::de::DeserializeOwned;

use crate::fault::shortened;

/// An input object, read by the same rules as a REST body: the same defaults, and every fault at once with its pointer below the argument. What does not
/// fit the schema is refused before, by the engine.
#[derive(Debug)]
pub(crate) struct Body<T>(Result<T, Vec<FieldError>>);

impl<T> Body<T> {
    /// The input, or every fault in it.
    pub(crate) fn into_valid(self) -> Result<T, Problem> {
        self.0.map_err(Problem::invalid_fields)
    }
}

impl<T: InputType + DeserializeOwned + Validate> InputType for Body<T> {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        T::create_type_info(registry)
    }

    fn parse(value: Option<Value>) -> InputValueResult<Self> {
        let json = serde_json::to_vec(&value.unwrap_or_default()).unwrap_or_default();
        Ok(Self(validation::from_json_line(&json).map_err(
            |error| match error {
                JsonError::Fields(errors) => errors,
                JsonError::Syntax(detail) => vec![FieldError::at("", "invalid", detail)],
            },
        )))
    }

    fn to_value(&self) -> Value {
        Value::Null
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }
}

/// The id that an argument spells; what is no id of this kind is not there, as in a path of REST.
pub(crate) fn id<T: Kind>(text: &str) -> Result<Id<T>, Problem> {
    text.parse().map_err(|error| {
        Problem::new(
            &problem::NOT_FOUND,
            format!("There is no {:?}: an id here {error}.", shortened(text)),
        )
    })
}
