//! Keeps PostgreSQL running: starts it again when it dies, and ends it when asked.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::State;
use super::error::Error;
use super::process::Process;
use super::server::Server;

/// The first pause before a restart, short because requests are refused meanwhile.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(50);

/// The longest pause, so that a full disk does not make a busy loop.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);

/// Having run for this long, the next death is a new story and begins with the shortest pause.
const STABLE_AFTER: Duration = Duration::from_mins(1);

/// How long PostgreSQL may take after SIGQUIT: it kills its own processes after five seconds.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Supervises a running server in a task of its own until it is told to stop.
pub(super) fn run(
    server: Server,
    process: Process,
    stop: CancellationToken,
    stop_timeout: Duration,
) -> watch::Receiver<State> {
    let (sender, receiver) = watch::channel(State::Running { pid: process.pid() });
    tokio::spawn(async move {
        keep_running(&server, process, &sender, &stop, stop_timeout).await;
        // A start that was broken off may still be ending. If it doesn't, it gets its signal when this process ends.
        if timeout(stop_timeout, server.finish()).await.is_err() {
            tracing::warn!("private PostgreSQL is still ending");
        }
        sender.send_replace(State::Stopped);
        tracing::info!("private PostgreSQL has stopped");
    });
    receiver
}

async fn keep_running(
    server: &Server,
    mut process: Process,
    state: &watch::Sender<State>,
    stop: &CancellationToken,
    stop_timeout: Duration,
) {
    let mut delay = RESTART_DELAY_MIN;
    loop {
        let exit = loop {
            tokio::select! {
                exit = process.exited() => break exit,
                () = stop.cancelled() => return end(process, stop_timeout).await,
                () = sleep(STABLE_AFTER), if delay > RESTART_DELAY_MIN => delay = RESTART_DELAY_MIN,
            }
        };
        state.send_replace(State::Restarting);
        match exit {
            Ok(status) => {
                tracing::error!(postgres.pid = process.pid(), postgres.status = %status, "private PostgreSQL died; restarting it");
            }
            Err(error) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(error = cause, "lost the private PostgreSQL; restarting it");
            }
        }
        process = tokio::select! {
            started = restart(server, &mut delay) => started,
            () = stop.cancelled() => return,
        };
        tracing::info!(
            postgres.pid = process.pid(),
            "private PostgreSQL is running again"
        );
        state.send_replace(State::Running { pid: process.pid() });
    }
}

/// Tries until it runs. There is no last attempt: what keeps it from starting, a full disk say, an operator can mend while this
/// process goes on answering that it is unavailable.
async fn restart(server: &Server, delay: &mut Duration) -> Process {
    loop {
        sleep(*delay).await;
        *delay = (*delay * 2).min(RESTART_DELAY_MAX);
        // Without a limit: a recovery that was broken off would begin again, and never end.
        match server.launch(Duration::MAX).await {
            Ok(process) => return process,
            Err(error) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(
                    error = cause,
                    "private PostgreSQL could not be restarted; trying again"
                );
            }
        }
    }
}

/// Fast shutdown, then immediate shutdown, then the end.
async fn end(mut process: Process, stop_timeout: Duration) {
    for (signal, patience) in [
        (Signal::SIGINT, stop_timeout),
        (Signal::SIGQUIT, QUIT_TIMEOUT),
    ] {
        process.signal(signal);
        match timeout(patience, process.exited()).await {
            Ok(Ok(_) | Err(Error::SpawnerGone)) => return,
            Ok(Err(error)) => {
                let cause: &dyn std::error::Error = &error;
                tracing::warn!(error = cause, "could not wait for the private PostgreSQL");
                return;
            }
            Err(_elapsed) => {
                tracing::warn!(postgres.signal = %signal, "private PostgreSQL did not stop in time");
            }
        }
    }
    process.signal(Signal::SIGKILL);
    // Nothing withstands this signal; waiting only makes sure that the process id is given back.
    let _ended = process.exited().await;
}
