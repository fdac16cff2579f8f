//! Measures Stoa against ceilings: how fast the same thing goes with nothing of Stoa around it.
//!
//! Each benchmark starts a server of its own, the release binary that lies beside this one, on a private PostgreSQL in the temporary directory. Rounds of ours
//! and of the ceiling take turns, so that whatever else the machine does disturbs both alike. What is printed is the median of the rounds and their spread, and
//! the CPU time that server and database took for it. See docs/performance.md for what the figures mean.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that can't be made ends by panicking"
)]
#![allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::float_arithmetic,
    reason = "figures are floats; there is no money here"
)]
#![allow(clippy::print_stdout, reason = "figures are what this program is for")]

use std::path::PathBuf;

use clap::{Parser, Subcommand};

mod arrivals;
mod bare;
mod ceiling;
mod cpu;
mod deliveries;
mod end_to_end;
mod figure;
mod growth;
mod hostile;
mod import;
mod load;
mod memory;
mod orders;
mod queue;
mod reads;
mod refresh;
mod rows;
mod statements;
mod tokens;
mod verify;
mod world;
mod writes;

use figure::Figure;
use writes::Write;

/// Measures Stoa against its ceilings.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(flatten)]
    options: Options,

    #[command(subcommand)]
    child: Option<Child>,
}

/// What this program starts itself as, so that what is measured against has a process of its own.
#[derive(Debug, Subcommand)]
enum Child {
    /// A bare handler that answers with given bytes.
    #[command(hide = true)]
    Handler,
    /// A bare receiver that counts what it is sent.
    #[command(hide = true)]
    Receiver,
}

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Only these benchmarks: reads, orders, `hot_sku`, import, deliveries, `deliveries_relayed`, `end_to_end`, `end_to_end_orders`, hostile, growth, tokens, `token_rows`, refresh, verify, `verify_new`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// Rounds of ours and of the ceiling; fewer than five say little.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How long a round of requests goes on, in seconds.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,

    /// Connections that send requests at once.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,

    /// Products of one import.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    products: u64,

    /// Deliveries of one round; a tenth of them where the relay is in it.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(5_000..=1_000_000))]
    deliveries: u64,

    /// The backlog of the flooding tenant.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=10_000_000))]
    flood: u64,

    /// Old attempts that a database grows to; a tenth as many dead letters, a thousandth as many endpoints. Ten million take 5 GB while it is measured.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(100_000..=100_000_000))]
    grown: u64,

    /// Shows what PostgreSQL was asked in each round of deliveries, which costs a little.
    #[arg(long)]
    statements: bool,

    /// Where to write the figures. Default: `bench.json` in the target directory.
    #[arg(long)]
    json: Option<PathBuf>,
}

const NAMES: [&str; 15] = [
    "reads",
    "orders",
    "hot_sku",
    "import",
    "deliveries",
    "deliveries_relayed",
    "end_to_end",
    "end_to_end_orders",
    "hostile",
    "growth",
    "tokens",
    "token_rows",
    "refresh",
    "verify",
    "verify_new",
];

#[tokio::main]
async fn main() {
    let Cli { options, child } = Cli::parse();
    match child {
        Some(Child::Handler) => return bare::serve_answers().await,
        Some(Child::Receiver) => return bare::serve_receiver().await,
        None => {}
    }
    for name in &options.only {
        assert!(
            NAMES.contains(&name.as_str()),
            "there is no benchmark {name}; there are {}",
            NAMES.join(", ")
        );
    }
    let mut figures = Vec::new();
    for name in NAMES {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        let figure = match name {
            "reads" => reads::run(&options).await,
            "orders" => orders::run(&options, orders::Shape::Spread).await,
            "hot_sku" => orders::run(&options, orders::Shape::Hot).await,
            "import" => import::run(&options).await,
            "deliveries" => deliveries::run(&options, deliveries::Backlog::Queued).await,
            "deliveries_relayed" => deliveries::run(&options, deliveries::Backlog::Unrelayed).await,
            "end_to_end" => end_to_end::run(&options, Write::Stock).await,
            "end_to_end_orders" => end_to_end::run(&options, Write::Order).await,
            "hostile" => hostile::run(&options).await,
            "growth" => growth::run(&options).await,
            "tokens" => tokens::run(&options, tokens::Against::Signing).await,
            "token_rows" => tokens::run(&options, tokens::Against::Rows).await,
            "refresh" => refresh::run(&options).await,
            "verify" => verify::run(&options, verify::Tokens::Same).await,
            _ => verify::run(&options, verify::Tokens::New).await,
        };
        println!("{figure}\n");
        figures.push(figure);
    }
    Figure::print_table(&figures);
    let path = options
        .json
        .unwrap_or_else(|| world::target_directory().join("bench.json"));
    std::fs::write(&path, serde_json::to_vec_pretty(&figures).unwrap()).unwrap();
    println!("written to {}", path.display());
}
