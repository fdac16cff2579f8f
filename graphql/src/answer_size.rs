//! The size of answers: how many values, and how many bytes of text, one HTTP request may gather.
//!
//! The cost is what a document says; how long lists and texts are is known only here, and so is what a batch comes to. The engine holds an answer
//! in memory until it is complete. Where it would be too much, everything that is still to be resolved is null at once, and the whole answer is
//! replaced by one error: a part of it would lack fields that can't be null.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_graphql::{
    PathSegment, Pos, QueryPathNode, QueryPathSegment, Response, ServerError, ServerResult, Value,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextResolve, ResolveInfo},
};
use kernel::problem::Problem;

use crate::{
    fault::{ANSWER_TOO_LARGE, request_error},
    limits::{TEXT_BYTES_MAX, VALUES_MAX},
    measure::TypeNames,
};

/// Tells each operation's [`Gathering`] of what is resolved.
pub(crate) struct AnswerSize;

impl ExtensionFactory for AnswerSize {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Self)
    }
}

/// What the answers of one HTTP request hold so far.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    values: AtomicU64,
    text_bytes: AtomicU64,
    /// Where it was too much.
    too_large: OnceLock<ServerError>,
}

impl Gathered {
    /// The error of an operation that is not executed because those before it have gathered all that there may be.
    pub(crate) fn refusal(&self) -> Option<ServerError> {
        let mut error = self.too_large.get()?.clone();
        error.path.clear();
        Some(error)
    }

    /// Begins anew: the next answer of a stream is another one.
    pub(crate) fn restart(&self) {
        self.values.store(0, Ordering::Relaxed);
        self.text_bytes.store(0, Ordering::Relaxed);
    }

    /// Whether there may be so much more; says where not.
    fn add(&self, values: u64, text_bytes: u64, path: &QueryPathNode<'_>) -> bool {
        let values = added(&self.values, values);
        let text_bytes = added(&self.text_bytes, text_bytes);
        if values > VALUES_MAX || text_bytes > TEXT_BYTES_MAX {
            self.too_large.get_or_init(|| {
                let detail = if values > VALUES_MAX {
                    format!("The answer would have more than {VALUES_MAX} values.")
                } else {
                    format!("The answer would have more than {TEXT_BYTES_MAX} bytes of text.")
                };
                let mut error = request_error(Problem::new(&ANSWER_TOO_LARGE, detail), &[]);
                error.path = segments(path);
                error
            });
        }
        self.too_large.get().is_none()
    }
}

fn added(sum: &AtomicU64, more: u64) -> u64 {
    sum.fetch_add(more, Ordering::Relaxed).saturating_add(more)
}

/// What one operation gathers.
#[derive(Debug)]
pub(crate) struct Gathering {
    gathered: Arc<Gathered>,
    type_names: HashMap<Pos, TypeNames>,
    /// Of fields that are null because their arguments can't be read.
    unread: Mutex<Vec<ServerError>>,
}

impl Gathering {
    /// Of an operation whose fields ask for these type names.
    pub(crate) fn new(gathered: Arc<Gathered>, type_names: HashMap<Pos, TypeNames>) -> Self {
        Self {
            gathered,
            type_names,
            unread: Mutex::default(),
        }
    }

    /// The operation's response, or the one error that takes its place.
    pub(crate) fn finish(&self, mut response: Response) -> Response {
        if let Some(error) = self.gathered.too_large.get() {
            return Response::from_errors(vec![error.clone()]);
        }
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        response.errors.append(&mut unread);
        response
    }

    /// Counts a value before it is resolved, with the type names that the engine resolves below it on its own.
    fn begin(&self, info: &ResolveInfo<'_>) -> bool {
        let below = self.type_names.get(&info.field.name.pos);
        let below = below.copied().unwrap_or_default();
        let key = match info.path_node.segment {
            QueryPathSegment::Name(name) => bytes(name),
            QueryPathSegment::Index(_) => 0,
        };
        let values = below.values.saturating_add(1);
        let text_bytes = below.bytes.saturating_add(key);
        self.gathered.add(values, text_bytes, info.path_node)
    }
}

#[async_graphql::async_trait::async_trait]
impl Extension for AnswerSize {
    async fn resolve(
        &self,
        context: &ExtensionContext<'_>,
        info: ResolveInfo<'_>,
        next: NextResolve<'_>,
    ) -> ServerResult<Option<Value>> {
        // An element of a list must be something to the engine, or it panics.
        let nothing = Ok(Some(Value::Null));
        let Some(gathering) = context.data_opt::<Arc<Gathering>>() else {
            return next.run(context, info).await;
        };
        if !gathering.begin(&info) {
            return nothing;
        }
        let path = info.path_node;
        let nullable = !info.return_type.ends_with('!');
        match next.run(context, info).await {
            Ok(Some(Value::String(text))) if !gathering.gathered.add(0, bytes(&text), path) => {
                nothing
            }
            // The engine would leave the field out.
            Err(error) if nullable => {
                let unread = gathering.unread.lock();
                unread.unwrap_or_else(PoisonError::into_inner).push(error);
                nothing
            }
            resolved => resolved,
        }
    }
}

fn bytes(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
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
