//! `posthaste migrate`: schema and queues.

use clap::Args;

use super::{Failure, Global, OutputFormat, output};
use crate::app::{self, MigrationReport};

#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// Say what would be applied and declared; change nothing.
    #[arg(long)]
    plan: bool,
}

pub async fn migrate(global: &Global, args: &MigrateArgs) -> Result<(), Failure> {
    global.start_logging()?;
    let settings = global.load()?;
    let report = app::migrate(&settings, args.plan).await?;
    match global.output {
        OutputFormat::Table => output::print(&text(&report, args.plan)),
        OutputFormat::Json => output::print_json(&report),
    }
}

fn text(report: &MigrationReport, plan: bool) -> String {
    let (apply, declare) = if plan { ("would apply", "would declare") } else { ("applied", "declared") };
    let mut lines: Vec<String> =
        report.migrations.iter().map(|applied| format!("{apply} {} of {}", applied.migration, applied.of)).collect();
    lines.extend(report.queues.iter().map(|queue| format!("{declare} {queue}")));
    if lines.is_empty() {
        lines.push("nothing to do: everything is up to date".to_owned());
    }
    lines.join("\n") + "\n"
}
