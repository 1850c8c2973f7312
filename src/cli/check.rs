//! `posthaste check`: read everything, start nothing.

use serde_json::json;

use super::{Failure, Global, OutputFormat, output};

pub fn check(global: &Global) -> Result<(), Failure> {
    let settings = global.load()?;
    let (adapters, configurations) = (settings.adapters.len(), settings.configurations.len());
    match global.output {
        OutputFormat::Table => {
            output::print(&format!("ok: {adapters} adapters in {configurations} configuration(s)\n"))
        }
        OutputFormat::Json => output::print_json(&json!({"adapters": adapters, "configurations": configurations})),
    }
}
