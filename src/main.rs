//! The program: arguments, configuration, run. All of it is in the library.

use std::process::ExitCode;

use clap::Parser;
use songflight::cli::{Cli, run};

/// Gives memory back after a wave of sockets, which glibc's does not (measured; docs/ARCHITECTURE.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    run(Cli::parse())
}
