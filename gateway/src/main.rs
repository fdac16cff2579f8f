//! `stoa`: the merchant integration gateway, in one executable. See `stoa --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::main()
}
