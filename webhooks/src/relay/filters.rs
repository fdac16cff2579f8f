//! The endpoints' filters, compiled once per version.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{endpoint::EndpointId, filter::Filter};

/// Filters that are kept; beyond that the memory starts anew.
const KEPT_MAX: usize = 10_000;

/// The filter of one version of each endpoint.
type Kept = HashMap<EndpointId, (i64, Arc<Filter>)>;

/// Compiled filters. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Filters(Arc<Mutex<Kept>>);

impl Filters {
    /// The filter of an endpoint's version.
    pub(super) fn get(
        &self,
        endpoint: EndpointId,
        version: i64,
        event_types: Option<&[String]>,
        condition: Option<&str>,
    ) -> Arc<Filter> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, filter)) = kept.get(&endpoint).filter(|(kept, _)| *kept == version) {
            return Arc::clone(filter);
        }
        // It was checked when it was saved. If a newer rule refuses it all the same, the endpoint is sent more than it asked for rather than less.
        let filter = Filter::compile(event_types, condition)
            .inspect_err(|error| tracing::error!(error = %error, endpoint.id = %endpoint, "a filter does not compile"))
            .or_else(|_| Filter::compile(event_types, None))
            .or_else(|_| Filter::compile(None, None));
        let filter = Arc::new(filter.unwrap_or_default());
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(endpoint, (version, Arc::clone(&filter)));
        filter
    }
}
