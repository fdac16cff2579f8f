//! What a request may be at most, each limit with its reason.
//!
//! The cost of a request is the number of values that its answer may hold: a leaf costs 1; an object costs 1 and what is selected of it; a list costs
//! 1 and, for each of its elements, what is selected of them. A connection has `first` elements, any other list is taken to have
//! [`LIST_ELEMENTS_ASSUMED`]. What is selected twice, under an alias or through a fragment, costs twice; `@skip` and `@include` change nothing.

/// What the operations of one HTTP request may cost together: a page of 250 products with some 15 fields each and of their variants.
pub const COST_MAX: u64 = 10_000;

/// What a mutation field costs beyond its answer: it writes, and commits on its own.
pub const MUTATION_COST: u64 = 10;

/// Elements of a list that is no connection: variants, lines, shipments. Most have fewer.
pub const LIST_ELEMENTS_ASSUMED: u64 = 4;

/// Fields below one another. The schema's own depth is 8.
pub const DEPTH_MAX: u32 = 12;

/// Fields below one another under `__schema` and `__type`: what tools ask for goes 15 deep, through lists of lists of non-null types.
pub const INTROSPECTION_DEPTH_MAX: u32 = 16;

/// Lists of the schema's members below one another under `__schema` and `__type`: types of fields of types are a tree without an end.
pub(crate) const INTROSPECTION_LISTS_MAX: u32 = 2;

/// Selection sets below one another, fragments included: bounds every recursion over a document.
pub const NESTING_MAX: u32 = 32;

/// Brackets below one another in a document: bounds the parser's recursion before it begins.
pub(crate) const BRACKETS_MAX: u32 = 64;

/// Fields of all operations of a document with their fragments spread, multiplied by nothing: bounds what validation walks through.
pub(crate) const SELECTIONS_MAX: u64 = COST_MAX;

/// Bytes of a document. The largest that tools send, introspection, has 2,000.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a request's body, as for REST: a product of 250 variants and long texts stays below.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes of names, literals and variables, each as often as it is used once fragments are spread: validation and execution copy them at every use.
pub(crate) const USED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Operations of one HTTP request.
pub const BATCH_MAX: usize = 10;

/// Transactions that one request reads in at a time: it shares the pool with everybody else.
pub(crate) const TRANSACTIONS_MAX: usize = 2;

/// Errors that one answer lists; a document can have one at every byte.
pub(crate) const ERRORS_MAX: usize = 100;

/// Characters of an error's message.
pub(crate) const MESSAGE_CHARACTERS_MAX: usize = 1_000;

/// Characters of what a client has sent that an error of ours repeats: an id with room to spare.
pub(crate) const ECHO_CHARACTERS_MAX: usize = 64;

/// Directives on one field, fragment or operation.
pub(crate) const DIRECTIVES_MAX: usize = 10;

/// Values in the answers of one HTTP request: fields, elements of lists, and type names, each as often as it is resolved. The cost takes lists
/// to be short; this is where it was wrong by 25 times.
pub const VALUES_MAX: u64 = 250_000;

/// Bytes of text, names included, in the answers of one HTTP request: a full page of the longest descriptions twice over.
pub const TEXT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// How often a quiet stream of answers shows that it lives; proxies in between close what is silent for longer than half a minute.
pub(crate) const HEARTBEAT_EVERY: std::time::Duration = std::time::Duration::from_secs(15);
