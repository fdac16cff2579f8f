//! Traces, exported by OTLP over HTTP to a collector of the operator's. Off unless its address is named.
//!
//! Exported are the spans of requests and of attempts, and nothing of what is logged: no personal data, no bodies, no secrets.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kernel::trace;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use tokio::runtime::Handle;

use crate::config::Observation;

/// The name under which traces show us.
const SERVICE_NAME: &str = "stoa";

/// The path of traces under a collector's address, by the protocol (OTLP/HTTP, section 'OTLP/HTTP Request').
const TRACES_PATH: &str = "v1/traces";

/// How long a collector may take for a batch. What it does not take is lost.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why traces can't be exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client can't be made.
    #[error("the client of the collector: {0}")]
    Client(#[from] reqwest::Error),
    /// The exporter can't be made.
    #[error("the exporter of traces: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// The export of traces; ends when it is stopped.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Begins to export on this runtime, if the operator asks for it.
    pub(crate) fn start(
        observation: &Observation,
        runtime: &Handle,
    ) -> Result<Option<Self>, Error> {
        let Some(collector) = &observation.otlp_endpoint else {
            return Ok(None);
        };
        #[allow(
            clippy::disallowed_methods,
            reason = "the collector is the operator's own: it may be on loopback"
        )]
        let client = reqwest::Client::builder()
            .timeout(EXPORT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(OnRuntime {
                runtime: runtime.clone(),
                client,
            })
            .with_endpoint(address_of(collector.as_str()))
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(sampler(
                observation.otlp_sample_percent,
            ))))
            .with_resource(
                Resource::builder_empty()
                    .with_service_name(SERVICE_NAME)
                    .build(),
            )
            .build();
        trace::turn_on();
        Ok(Some(Self(provider)))
    }

    /// Makes spans.
    pub(crate) fn tracer(&self) -> SdkTracer {
        self.0.tracer(SERVICE_NAME)
    }

    /// Exports what is left.
    pub(crate) fn stop(&self) {
        if let Err(error) = self.0.shutdown() {
            tracing::debug!(error = %error, "the last traces could not be exported");
        }
    }
}

/// Where a collector takes traces.
fn address_of(collector: &str) -> String {
    format!("{}/{TRACES_PATH}", collector.trim_end_matches('/'))
}

/// Of what percentage of the requests that come without a trace one is made.
fn sampler(percent: u8) -> Sampler {
    #[allow(
        clippy::float_arithmetic,
        reason = "the sampler takes a fraction; it is no money"
    )]
    Sampler::TraceIdRatioBased(f64::from(percent) / 100.0)
}

/// Whether a span is one that is exported.
pub(crate) fn is_exported(metadata: &tracing::Metadata<'_>) -> bool {
    metadata.is_span()
        && *metadata.level() <= tracing::Level::INFO
        && ["gateway", "webhooks"]
            .iter()
            .any(|ours| metadata.target().starts_with(ours))
}

/// Our one HTTP client, for an exporter that works in a thread of its own, outside of the runtime.
#[derive(Debug)]
struct OnRuntime {
    runtime: Handle,
    client: reqwest::Client,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let status = answer.status();
            // What a collector says beside its status is of no use here, and has no bound.
            let mut answer = http::Response::new(Bytes::new());
            *answer.status_mut() = status;
            Ok::<_, reqwest::Error>(answer)
        });
        Ok(sending.await??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collectors_address_may_end_with_a_slash_or_not() {
        for collector in ["http://127.0.0.1:4318", "http://127.0.0.1:4318/"] {
            assert_eq!(address_of(collector), "http://127.0.0.1:4318/v1/traces");
        }
    }
}
