//! Parameters that many operations share, as the OpenAPI document shows them.

use utoipa::IntoParams;

/// The header that every mutation takes.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes a header; the extractor reads it")]
pub(super) struct KeyHeader {
    /// A name for this change: 1 to 255 visible ASCII characters, new for each change and the same for each retry of it. Kept for 72 hours.
    #[param(
        rename = "Idempotency-Key",
        example = "8e03978e-40d5-43e8-bc93-6894a57f9324"
    )]
    idempotency_key: String,
}

/// The same header where a change can be repeated without harm.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes a header; the extractor reads it")]
pub(super) struct OptionalKeyHeader {
    /// A name for this change, as for a POST. Without one, a repeated change is a new one.
    #[param(
        rename = "Idempotency-Key",
        example = "8e03978e-40d5-43e8-bc93-6894a57f9324"
    )]
    idempotency_key: Option<String>,
}

/// The header of optimistic concurrency.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes a header; the extractor reads it")]
pub(super) struct VersionHeader {
    /// The ETag that the change is based on; 412 if the resource has moved on.
    #[param(rename = "If-Match", example = "\"3\"")]
    if_match: Option<String>,
}

/// The parameters of every list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes parameters; the extractor reads them")]
pub(super) struct PageParameters {
    /// Rows on the page, 1 to 250.
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}
