//! `/v1/catalog-imports`: whole catalogs, streamed in.

use std::{pin::pin, sync::Arc};

use axum::{
    body::{Body, HttpBody},
    extract::{Query, Request, State},
    http::{HeaderValue, Version, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use commerce::catalog_import::{
    self, CatalogImport, CatalogImportId, CatalogImportParameters, LineResult, Session, SummaryLine,
};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use kernel::{
    page::Page,
    problem::{self, Problem},
    trace::Carried,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Services,
    parameters::{KeyHeader, PageParameters},
};
use crate::edge::{
    Authenticated, IdempotencyKey, Listed, Paging, PathId, Resource, Versioned,
    answer::mark_replay,
    extract::{self, NoFilters},
    fault::Fault,
};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(list_catalog_imports, import_catalog))
        .routes(routes!(get_catalog_import))
        .routes(routes!(list_catalog_import_results))
}

/// Lines of JSON, each an object.
const NDJSON: &str = "application/x-ndjson";

impl Versioned for CatalogImport {
    fn version(&self) -> i64 {
        self.version.into()
    }
}

/// What an import is begun with.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportParameters {
    /// What to call it, at most 255 characters.
    label: Option<String>,
}

/// Where results begin.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ResultParameters {
    /// The last line whose result you have; 0 for all.
    #[param(minimum = 0, default = 0)]
    after: Option<String>,
}

/// List catalog imports
///
/// The latest first.
#[utoipa::path(
    get, path = "/v1/catalog-imports", operation_id = "listCatalogImports", tag = "Catalog imports",
    params(PageParameters),
    responses((status = 200, description = "A page of imports.", body = Page<CatalogImport>)),
    security(("oauth" = ["catalog:read"])),
)]
async fn list_catalog_imports(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging {
        page,
        filters: NoFilters {},
    }: Paging<CatalogImportId, NoFilters>,
) -> Result<Listed<CatalogImport>, Fault> {
    let mut tx = services.enter(&actor).await?;
    Ok(Listed(catalog_import::list(&mut tx, &actor, &page).await?))
}

/// Import a catalog
///
/// Send a product a line, as many as you like. The answer streams a result for each line, in order, and ends with a summary; read it while you
/// send, or after. Lines are committed in batches with a checkpoint: if the connection breaks, send the same body under the same key again, and
/// it goes on where it stopped, with the results from the first line on. A key stands for one import, whatever its body:
/// another file takes another key. A broken line harms no other.
#[utoipa::path(
    post, path = "/v1/catalog-imports", operation_id = "importCatalog", tag = "Catalog imports",
    params(KeyHeader, ImportParameters),
    request_body(
        content = String, content_type = "application/x-ndjson", description = "One `ProductInput` a line.",
        example = json!("{\"externalId\":\"SHIRT-1\",\"title\":\"Linen shirt\",\"variants\":[{\"price\":{\"amount\":\"49.00\",\"currency\":\"EUR\"}}]}\n")
    ),
    responses((
        status = 200, description = "One `LineResult` a line, and at last one `SummaryLine`.", content_type = "application/x-ndjson",
        body = inline(LineResultOrSummary),
        headers(("Location" = String, description = "The import, where its results stay.")),
    )),
    security(("oauth" = ["catalog:write"])),
)]
async fn import_catalog(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    IdempotencyKey(key): IdempotencyKey,
    request: Request,
) -> Result<Response, Fault> {
    if !extract::is_media_type(request.headers().get(header::CONTENT_TYPE), NDJSON) {
        let detail = format!("The body must be lines of JSON, with `Content-Type: {NDJSON}`.");
        return Err(Fault(Problem::new(
            &problem::UNSUPPORTED_MEDIA_TYPE,
            detail,
        )));
    }
    let Query(ImportParameters { label }) =
        Query::try_from_uri(request.uri()).map_err(|error| extract::invalid_query(&error))?;
    let session = services
        .importer()
        .begin(&actor, &key, &CatalogImportParameters { label })
        .await?;
    let location = format!("/v1/catalog-imports/{}", session.import().id);
    let replayed = session.is_continued();
    let results = session.results(0);
    let version = request.version();
    // It goes on after its answer has begun, and in the request's trace.
    let trace = request.extensions().get::<Arc<Carried>>().cloned();
    let body = pieces(request.into_body(), version);
    tokio::spawn(async move {
        run(session, body).await;
        drop(trace);
    });
    let mut response = ndjson(results);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    mark_replay(&mut response, replayed);
    Ok(response)
}

/// Works on the import whether or not anybody reads its results, and reads the body to its end whatever happens: a client that sends all before it
/// reads would otherwise never get to the summary that says why.
async fn run(session: Session, body: impl Stream<Item = Result<Bytes, BodyError>>) {
    let mut body = pin!(body.fuse());
    if let Err(interruption) = session.run(&mut body).await {
        tracing::info!(interruption.detail, "a catalog import was interrupted");
    }
    while let Some(Ok(_)) = body.next().await {}
}

/// Why a body can't be read to its end.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error(transparent)]
    Broken(#[from] axum::Error),
    #[error("the stream was reset before its end")]
    Reset,
}

/// A body's data. Over HTTP/2, hyper takes a stream that was reset without an error for one that has ended, and proxies send just that when their own client
/// goes away; an import must not take what has arrived for the whole.
fn pieces(body: Body, version: Version) -> impl Stream<Item = Result<Bytes, BodyError>> {
    stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        loop {
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Some((Ok(data), Some(body)));
                    }
                }
                Some(Err(error)) => return Some((Err(error.into()), None)),
                None if version == Version::HTTP_2 && !body.is_end_stream() => {
                    return Some((Err(BodyError::Reset), None));
                }
                None => return None,
            }
        }
    })
}

/// Get a catalog import
#[utoipa::path(
    get, path = "/v1/catalog-imports/{importId}", operation_id = "getCatalogImport", tag = "Catalog imports",
    params(("importId" = CatalogImportId, Path, description = "The import.")),
    responses((status = 200, description = "The import, and how far it has come.", body = CatalogImport)),
    security(("oauth" = ["catalog:read"])),
)]
async fn get_catalog_import(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<CatalogImport>,
) -> Result<Resource<CatalogImport>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    Ok(Resource(catalog_import::get(&mut tx, &actor, id).await?))
}

/// Get a catalog import's results
///
/// Those that are there by now, and a summary. Does not wait for more.
#[utoipa::path(
    get, path = "/v1/catalog-imports/{importId}/results", operation_id = "listCatalogImportResults", tag = "Catalog imports",
    params(("importId" = CatalogImportId, Path, description = "The import."), ResultParameters),
    responses((
        status = 200, description = "One `LineResult` a line, and at last one `SummaryLine`.", content_type = "application/x-ndjson",
        body = inline(LineResultOrSummary),
    )),
    security(("oauth" = ["catalog:read"])),
)]
async fn list_catalog_import_results(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<CatalogImport>,
    Paging { page: _, filters }: Paging<i64, ResultParameters>,
) -> Result<Response, Fault> {
    let after = extract::number("after", filters.after.as_deref())?.unwrap_or(0);
    Ok(ndjson(
        services.importer().results(&actor, id, after).await?,
    ))
}

/// A line of a stream of results.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes a stream")]
enum LineResultOrSummary {
    /// What a line came to.
    Line(LineResult),
    /// What the import has come to.
    Summary(SummaryLine),
}

impl Services {
    fn importer(&self) -> catalog_import::Importer {
        catalog_import::Importer::new(
            self.database.clone(),
            Arc::clone(&self.grants),
            self.clock.clone(),
            self.announcer.clone(),
        )
    }
}

fn ndjson(lines: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>));
    let mut response = body.into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response
}
