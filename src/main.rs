//! The program: arguments, configuration, run. All of it is in the library.

use std::process::ExitCode;

use clap::Parser;
use songflight::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
