//! `posthaste migrate`: schema and queues.

use clap::{Args, ValueEnum};

use super::{Failure, Global, OutputFormat, output};
use crate::app::{self, MigrationReport};
use crate::store::HomeDecision;

#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// Say what would be applied and declared; change nothing.
    #[arg(long)]
    plan: bool,
    /// What a home database is that was moved: it goes on in the other's place, or is a copy beside it.
    #[arg(long, value_enum, conflicts_with = "plan")]
    home: Option<Home>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Home {
    // A fail-over or a restored backup: the other is gone.
    Same,
    // The other goes on; what was under way is put on hold here.
    Copy,
}

pub async fn migrate(global: &Global, args: &MigrateArgs) -> Result<(), Failure> {
    global.start_logging()?;
    let settings = global.load_running().await?;
    let home = args.home.map(|home| match home {
        Home::Same => HomeDecision::Same,
        Home::Copy => HomeDecision::Copy,
    });
    let mut report = MigrationReport::default();
    let done = app::migrate(&settings, args.plan, home, &mut report).await;
    // Also before an error: it stands.
    if done.is_ok() || report != MigrationReport::default() {
        match global.output {
            OutputFormat::Table => output::print(&text(&report, args.plan))?,
            OutputFormat::Json => output::print_json(&report)?,
        }
    }
    Ok(done?)
}

fn text(report: &MigrationReport, plan: bool) -> String {
    let (apply, declare) = if plan { ("would apply", "would declare") } else { ("applied", "declared") };
    let mut lines: Vec<String> =
        report.migrations.iter().map(|applied| format!("{apply} {} of {}", applied.migration, applied.of)).collect();
    lines.extend(report.home.iter().map(|report| match &report.settled {
        settled if settled.on_hold == 0 => format!("home {} settled: {}", settled.home, settled.decision),
        settled => {
            format!("home {} settled: {}; {} messages put on hold", settled.home, settled.decision, settled.on_hold)
        }
    }));
    let not_shown = report.home.iter().flat_map(|report| &report.not_shown);
    lines.extend(not_shown.map(|broker| format!("{broker} does not show its epoch: see `posthaste doctor`")));
    lines.extend(report.queues.iter().map(|queue| format!("{declare} {queue}")));
    if lines.is_empty() {
        lines.push("nothing to do: everything is up to date".to_owned());
    }
    lines.join("\n") + "\n"
}
