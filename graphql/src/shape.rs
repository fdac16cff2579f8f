//! The shape of the schema, as measuring needs it: which fields a type has, which are leaves, lists and connections.

use std::collections::HashMap;

use async_graphql::parser::{
    parse_schema,
    types::{BaseType, FieldDefinition, Type, TypeKind, TypeSystemDefinition},
};

/// The composite types of a schema.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    types: HashMap<String, TypeShape>,
}

/// The fields of an object or an interface.
pub(crate) type TypeShape = HashMap<String, FieldShape>;

/// What measuring needs to know of a field.
#[derive(Debug, Clone)]
pub(crate) struct FieldShape {
    /// The name of its type.
    pub(crate) of: String,
    /// Whether it is a list.
    pub(crate) list: bool,
    /// Whether it is a connection: it takes `first`.
    pub(crate) connection: bool,
}

impl Shape {
    /// Reads the shape from a schema's own description of itself.
    pub(crate) fn of_sdl(sdl: &str) -> Result<Self, async_graphql::parser::Error> {
        let mut types = HashMap::new();
        for definition in parse_schema(sdl)?.definitions {
            let TypeSystemDefinition::Type(definition) = definition else {
                continue;
            };
            let fields = match &definition.node.kind {
                TypeKind::Object(object) => &object.fields,
                TypeKind::Interface(interface) => &interface.fields,
                _ => continue,
            };
            let fields = fields
                .iter()
                .map(|field| {
                    (
                        field.node.name.node.to_string(),
                        FieldShape::of(&field.node),
                    )
                })
                .collect();
            types.insert(definition.node.name.node.to_string(), fields);
        }
        Ok(Self { types })
    }

    /// The fields of a composite type.
    pub(crate) fn fields(&self, name: &str) -> Option<&TypeShape> {
        self.types.get(name)
    }
}

impl FieldShape {
    fn of(field: &FieldDefinition) -> Self {
        let (of, list) = named(&field.ty.node);
        Self {
            of,
            list,
            connection: field
                .arguments
                .iter()
                .any(|argument| argument.node.name.node == "first"),
        }
    }
}

fn named(ty: &Type) -> (String, bool) {
    match &ty.base {
        BaseType::Named(name) => (name.to_string(), false),
        BaseType::List(of) => (named(of).0, true),
    }
}
