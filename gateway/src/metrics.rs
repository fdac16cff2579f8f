//! `/metrics`: what the parts count, for operators, on a listener of its own.
//!
//! Never on the public listener, and off unless an address is named: nobody is asked for a token here.

use std::{net::SocketAddr, sync::OnceLock};

use axum::{
    Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The media type of Prometheus's text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How often what was recorded is brought in order, so that it takes no more memory when nobody asks for it.
const UPKEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// A recorder of everything that the parts count.
fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(
        Matcher::Full(webhooks::metrics::ATTEMPT_DURATION.name.to_owned()),
        webhooks::metrics::ATTEMPT_DURATION_BUCKETS_S,
    )?;
    Ok(builder.build_recorder())
}

/// Has everything that this process counts collected from now on, once for all servers in it. `None` if somebody else collects already.
fn collect() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let recorder = recorder().ok()?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        webhooks::metrics::describe();
        Some(handle)
    });
    handle.as_ref()
}

fn router(handle: PrometheusHandle) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .with_state(handle)
}

async fn render(State(handle): State<PrometheusHandle>) -> Response {
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], handle.render()).into_response()
}

/// Collects, and answers on `listener` until `stop`.
pub(crate) async fn serve(listener: TcpListener, stop: CancellationToken) {
    let Some(handle) = collect() else {
        tracing::warn!("somebody else collects the metrics of this process");
        return;
    };
    let address = listener.local_addr().ok();
    tracing::info!(
        address = address.map(|address: SocketAddr| address.to_string()),
        "metrics are served"
    );
    let upkeep = async {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            handle.run_upkeep();
        }
    };
    let stopped = stop.clone();
    let serving = async {
        let serving = axum::serve(listener, router(handle.clone()))
            .with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(error = %error, "the metrics' listener ended");
        }
    };
    tokio::join!(serving, stopped.run_until_cancelled(upkeep));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use webhooks::metrics;

    use super::*;

    #[test]
    fn what_is_counted_is_shown_with_its_help_in_few_series() {
        let recorder = recorder().unwrap();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&recorder, || {
            metrics::describe();
            metrics::attempt(Some(204), None, Duration::from_millis(30));
            metrics::attempt(Some(503), None, Duration::from_secs(3));
            metrics::attempt(None, Some("timeout"), Duration::from_secs(15));
            metrics::attempt(None, Some("whatever"), Duration::from_millis(1));
            metrics::in_flight(3);
            let open = metrics::stream_opened();
            let other = metrics::stream_opened();
            drop(open);
            std::mem::forget(other);
        });
        let text = handle.render();
        for line in [
            "# TYPE stoa_attempts_total counter",
            "# HELP stoa_attempts_in_flight Attempts under way",
            r#"stoa_attempts_total{outcome="succeeded"} 1"#,
            r#"stoa_attempts_total{outcome="status_5xx"} 1"#,
            r#"stoa_attempts_total{outcome="timeout"} 1"#,
            r#"stoa_attempts_total{outcome="other"} 1"#,
            r#"stoa_attempt_duration_seconds_bucket{le="0.05"} 2"#,
            "stoa_attempt_duration_seconds_count 4",
            "stoa_attempts_in_flight 3",
            "stoa_streams_open 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
