//! `stoa`: the merchant integration gateway, in one executable. See `stoa --help`.

use std::process::ExitCode;

/// Many small things are made and dropped by many threads, which is what this one is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gateway::cli::main()
}
