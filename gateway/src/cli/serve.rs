//! `stoa serve`.

use tokio::signal::unix::{SignalKind, signal};

use super::{CommandResult, say};
use crate::{
    composition::{Foundation, Server},
    config::Serve,
};

/// Serves until SIGINT or SIGTERM, then finishes what is in flight.
pub(super) async fn run(serve: Serve) -> CommandResult {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Better said before a database is made.
    Server::check_listen(&serve)?;
    let foundation = tokio::select! {
        foundation = Foundation::open(&serve.storage) => foundation?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let server = Server::start(&serve, &foundation).await?;
    if let Some(pid) = foundation.postgres_pid() {
        tracing::info!(postgres.pid = pid, "private PostgreSQL is up");
    } else {
        tracing::info!("using the PostgreSQL of STOA_DATABASE_URL");
    }
    let address = format!("http://{}", server.address());
    if address == server.issuer().as_str() {
        say(format_args!("stoa listens on {address}"));
    } else {
        say(format_args!(
            "stoa listens on {address} as {}",
            server.issuer()
        ));
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    server.stop().await;
    foundation.close().await;
    Ok(())
}
