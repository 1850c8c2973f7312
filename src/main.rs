//! The `posthaste` command.

use std::process::ExitCode;

/// A message is some 150 small allocations, many of them freed by another thread: half the instructions of the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    posthaste::cli::main()
}
