//! Writing to standard output, also into a pipe that somebody closes.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use super::{Exit, Failure};

/// Prints text as it is; a closed pipe is the reader's decision, not an error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(Exit::Failed, format!("standard output: {error}"))),
    }
}

/// Prints a value as one indented JSON document.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    print(&format!("{text}\n"))
}
