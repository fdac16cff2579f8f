//! `stoa demo`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::CommandResult;
use crate::demo;

/// What to show.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Your own catalog instead of the generated one: NDJSON or a Google Merchant feed, plain or gzipped.
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,

    /// Exits after the last step, with a failure if a step fell short.
    #[arg(long)]
    once: bool,

    /// Writes addresses and credentials into this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// The address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Where to keep the data. Default: a new directory, removed at the end.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
}

impl Demo {
    pub(super) async fn run(self) -> CommandResult {
        let Self {
            catalog,
            once,
            json,
            listen,
            data_dir,
        } = self;
        demo::run(demo::Options {
            catalog,
            once,
            json,
            listen,
            data_dir,
        })
        .await
    }
}
