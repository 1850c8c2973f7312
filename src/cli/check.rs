//! `posthaste check`: read everything, start nothing.

use serde_json::json;

use super::{Failure, Global, OutputFormat, output};
use crate::config;

pub fn check(global: &Global) -> Result<(), Failure> {
    let loaded = config::load(&global.resources, &global.configurations, &config::process_environment);
    let settings = match loaded {
        Ok(settings) => settings,
        Err(error) => {
            if global.output == OutputFormat::Json {
                output::print_json(&json!({"valid": false, "mistakes": error.diagnostics}))?;
            }
            return Err(Failure::configuration(error));
        }
    };
    let (adapters, configurations) = (settings.adapters.len(), settings.configurations.len());
    let answer = json!({"valid": true, "adapters": adapters, "configurations": configurations});
    output::print_result(global, &answer, |out| {
        writeln!(out, "ok: {adapters} adapters in {configurations} configuration(s)")
    })
}
