//! The `posthaste` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    posthaste::cli::main()
}
