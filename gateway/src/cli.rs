//! The command line: one executable with its roles as subcommands.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    config::{LogFormat, Logging},
    traces::{Traces, is_exported},
};

mod admin;
mod dead_letters;
mod demo;
mod describe;
mod events;
mod import;
mod listen;
mod login;
mod migrate;
mod serve;
mod server;
mod trigger;

/// Stoa: the integration gateway of a commerce platform.
#[derive(Debug, Parser)]
#[command(name = "stoa", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    logging: Logging,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the API, relays events and delivers webhooks.
    Serve(Box<crate::config::Serve>),
    /// Brings the schema up to date.
    Migrate(crate::config::Storage),
    /// Manages merchants.
    #[command(subcommand)]
    Merchant(admin::Merchant),
    /// Manages apps.
    #[command(subcommand)]
    App(admin::App),
    /// Manages what merchants grant to apps.
    #[command(subcommand)]
    Grant(admin::Grant),
    /// Manages the people who sign in.
    #[command(subcommand)]
    Person(admin::Person),
    /// Manages the keys that sign access tokens.
    #[command(subcommand)]
    SigningKey(admin::SigningKey),
    /// Shows the end of an audit log.
    Audit(admin::Audit),
    /// Lets this command line act for a merchant, as the merchant allows it in the browser.
    Login(login::Login),
    /// Gives logins back, and forgets them.
    Logout(login::Logout),
    /// Shows for whom this command line may do what, and until when.
    Whoami(login::Whoami),
    /// Streams a catalog into a merchant's products.
    Import(import::Import),
    /// Posts a merchant's events to an address of this machine as they happen.
    Listen(listen::Listen),
    /// Sends a test event to the app's endpoints.
    Trigger(trigger::Trigger),
    /// Shows a merchant's events.
    #[command(subcommand)]
    Events(events::Events),
    /// Shows and replays deliveries that were given up on.
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Shows all of it at work on this machine.
    Demo(demo::Demo),
    /// Prints the generated descriptions: OpenAPI, GraphQL schema, errors.
    Describe {
        /// Which one.
        #[arg(value_enum)]
        what: describe::What,
    },
}

/// A command's failure: shown to the user, with its causes.
pub(crate) type CommandResult = Result<(), Failure>;

/// Why a command fails.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = match cli.command {
        Command::Demo(_) => "error",
        // Notices of PostgreSQL are nobody's business.
        Command::Serve(_) => "info,sqlx=warn",
        _ => "warn",
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return report(&error),
    };
    let traces = match &cli.command {
        Command::Serve(serve) => Traces::start(&serve.observation, runtime.handle()),
        _ => Ok(None),
    };
    let traces = match traces {
        Ok(traces) => traces,
        Err(error) => return report(&error),
    };
    start_log(&cli.logging, filter, traces.as_ref());
    let outcome = runtime.block_on(run(cli.command));
    if let Some(traces) = traces {
        traces.stop();
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&*error),
    }
}

async fn run(command: Command) -> CommandResult {
    match command {
        Command::Serve(serve) => serve::run(*serve).await,
        Command::Migrate(storage) => migrate::run(storage).await,
        Command::Merchant(command) => command.run().await,
        Command::App(command) => command.run().await,
        Command::Grant(command) => command.run().await,
        Command::Person(command) => command.run().await,
        Command::SigningKey(command) => command.run().await,
        Command::Audit(command) => command.run().await,
        Command::Login(login) => login.run().await,
        Command::Logout(logout) => logout.run().await,
        Command::Whoami(whoami) => whoami.run().await,
        Command::Import(import) => import.run().await,
        Command::Listen(listen) => listen.run().await,
        Command::Trigger(trigger) => trigger.run().await,
        Command::Events(command) => command.run().await,
        Command::DeadLetters(command) => command.run().await,
        Command::Demo(demo) => demo.run().await,
        Command::Describe { what } => describe::run(what),
    }
}

/// Logs go to standard error: standard output belongs to what a command prints for others. What is logged does not depend on what is traced.
fn start_log(logging: &Logging, default: &str, traces: Option<&Traces>) {
    let filter = EnvFilter::new(logging.log.as_deref().unwrap_or(default));
    let registry = tracing_subscriber::registry();
    let Some(traces) = traces else {
        // Filtered as a whole, so that a span which nobody reads is not even made.
        return registry.with(filter).with(log_layer(logging)).init();
    };
    let exported = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer())
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(is_exported));
    let log = log_layer(logging).with_filter(filter);
    registry.with(exported).with(log).init();
}

fn log_layer<S>(logging: &Logging) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    let log = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match logging.log_format {
        LogFormat::Text => log.boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    }
}

/// Prints an error and its causes; the exit code of a failure.
fn report(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let mut text = format!("stoa: {error}");
    let mut cause = error.source();
    while let Some(next) = cause {
        let sentence = next.to_string();
        if !text.contains(&sentence) {
            text.push_str(": ");
            text.push_str(&sentence);
        }
        cause = next.source();
    }
    // There is nobody left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}

/// Prints a line for the user.
pub(crate) fn say(line: impl std::fmt::Display) {
    // A closed pipe (`stoa … | head`) is the reader's choice.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Waits until the user or the system asks for the end.
pub(crate) async fn stopped() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            // Then Ctrl-C has to do.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
