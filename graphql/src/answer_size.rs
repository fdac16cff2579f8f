//! The size of answers: how many bytes of text one operation may gather.
//!
//! The cost counts values, not bytes, and a value may be a long description, asked for under many names. The engine holds an answer in memory
//! until it is complete; this stops gathering where it would be too much.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_graphql::{
    PathSegment, QueryPathNode, QueryPathSegment, ServerResult, Value,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextResolve, ResolveInfo},
};
use kernel::problem::Problem;

use crate::{
    fault::{ANSWER_TOO_LARGE, request_error},
    limits::TEXT_BYTES_MAX,
};

/// Makes a counter for each operation.
pub(crate) struct AnswerSize;

impl ExtensionFactory for AnswerSize {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Gathered::default())
    }
}

/// Bytes of text so far.
#[derive(Default)]
struct Gathered(AtomicUsize);

#[async_graphql::async_trait::async_trait]
impl Extension for Gathered {
    async fn resolve(
        &self,
        context: &ExtensionContext<'_>,
        info: ResolveInfo<'_>,
        next: NextResolve<'_>,
    ) -> ServerResult<Option<Value>> {
        let path = info.path_node;
        let value = next.run(context, info).await?;
        if let Some(Value::String(text)) = &value
            && self
                .0
                .fetch_add(text.len(), Ordering::Relaxed)
                .saturating_add(text.len())
                > TEXT_BYTES_MAX
        {
            let detail = format!("The answer would have more than {TEXT_BYTES_MAX} bytes of text.");
            let mut error = request_error(Problem::new(&ANSWER_TOO_LARGE, detail), &[]);
            error.path = segments(path);
            return Err(error);
        }
        Ok(value)
    }
}

fn segments(node: &QueryPathNode<'_>) -> Vec<PathSegment> {
    let mut path = Vec::new();
    let mut next = Some(node);
    while let Some(node) = next {
        path.push(match node.segment {
            QueryPathSegment::Index(index) => PathSegment::Index(index),
            QueryPathSegment::Name(name) => PathSegment::Field(name.to_owned()),
        });
        next = node.parent;
    }
    path.reverse();
    path
}
