//! The command line: one file per command.

mod adapter;
mod allocator;
mod check;
mod client;
mod conflict;
pub mod dev;
mod doctor;
mod exit;
mod find;
mod migrate;
mod output;
mod prove;
mod run;
mod select;
mod send;
mod store;
mod trace;
mod txn;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use exit::{Exit, Failure};

use crate::config::{self, Settings};
use crate::store::migrate::SCHEMA_VERSION;
use crate::telemetry::{LogFormat, flush_log, log_to_stderr};

/// A transactional fire-and-forget pipeline: HTTP in, RabbitMQ between, PostgreSQL out; nothing lost, nothing twice.
#[derive(Debug, Parser)]
#[command(name = "posthaste", version = version(), propagate_version = true, arg_required_else_help = true,
          max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Where resources are read from, unless told otherwise.
const DEFAULT_RESOURCES: &str = "resources.yml";

/// Options that stand before or after any command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// What exists in this environment.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "POSTHASTE_RESOURCES",
        hide_env_values = true,
        default_value = DEFAULT_RESOURCES
    )]
    resources: PathBuf,
    /// The folder with one folder per configuration.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "POSTHASTE_CONFIGURATIONS",
        hide_env_values = true,
        default_value = "configurations"
    )]
    configurations: PathBuf,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t)]
    output: OutputFormat,
    /// What is logged, such as info, debug or posthaste=debug,warn.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "POSTHASTE_LOG",
        hide_env_values = true,
        default_value = "info"
    )]
    log: String,
    /// How log lines look.
    #[arg(long, global = true, value_enum, env = "POSTHASTE_LOG_FORMAT", hide_env_values = true, default_value_t)]
    log_format: LogFormatName,
    /// The console of the instance to act on, such as http://127.0.0.1:8081 [default: http.console.listen of the resources]
    #[arg(long, global = true, value_name = "URL", value_parser = find::console_url)]
    console: Option<find::ConsoleUrl>,
    /// Who acts, for the record [default: your login name].
    #[arg(long = "as", global = true, value_name = "NAME")]
    who: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum LogFormatName {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the configurations until SIGTERM or Ctrl-C.
    Run,
    Dev(dev::DevArgs),
    /// Read all files and report every mistake; start nothing.
    Check,
    /// Bring the databases up to date and declare the queues.
    Migrate(migrate::MigrateArgs),
    /// List, start and stop adapters of the running instance.
    #[command(subcommand)]
    Adapter(adapter::AdapterCommand),
    /// Look into message logs and error stores; resend, delete, export.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Ids that came again with another body
    #[command(subcommand)]
    Conflict(conflict::ConflictCommand),
    /// Transactions over several databases: show what is in doubt, finish one by hand.
    #[command(subcommand)]
    Txn(txn::TxnCommand),
    /// Show one message's whole life by its id.
    Trace(trace::TraceArgs),
    /// Show from one snapshot that every message is accounted for; exit status 1 when one is not.
    Prove(prove::ProveArgs),
    /// Show which promises the live servers void, with the setting to change; exit status 1 when one is void.
    Doctor,
    /// Post a message to an adapter's API listener.
    Send(send::SendArgs),
}

impl Command {
    /// How long it waits for whoever reads what it has to say at its end. What serves must end, and be started anew.
    fn patience(&self) -> Option<Duration> {
        matches!(self, Self::Run | Self::Dev(_)).then_some(output::PATIENCE)
    }
}

impl Global {
    /// Reads and checks the user's files.
    fn load(&self) -> Result<Settings, Failure> {
        let env = |name: &str| std::env::var(name).ok();
        config::load(&self.resources, &self.configurations, &env).map_err(Failure::configuration)
    }

    /// The same, with the servers of the running `posthaste dev` when it is the instance that commands find.
    async fn load_running(&self) -> Result<Settings, Failure> {
        let mut settings = self.load()?;
        let console = self.console.clone().unwrap_or_else(|| settings.console.listen.into());
        match find::dev_at(&console).await? {
            Some(dev) => {
                dev::take_over(&mut settings, &dev).map_err(Failure::failed)?;
                output::note(&format!("asking the servers of `posthaste dev`, pid {}", dev.pid));
            }
            None if self.console.is_some() => {
                let others = "other servers are those of resources.yml, without --console";
                return Err(Failure::failed(format!(
                    "no `posthaste dev` of yours has its console at {console}; {others}"
                )));
            }
            None => {}
        }
        Ok(settings)
    }

    /// For commands that act on no instance.
    fn refuse_console(&self, command: &str) -> Result<(), Failure> {
        match &self.console {
            Some(_) => {
                Err(Failure::usage(format!("`posthaste {command}` acts on no running instance: leave --console out")))
            }
            None => Ok(()),
        }
    }

    fn start_logging(&self) -> Result<(), Failure> {
        let format = match self.log_format {
            LogFormatName::Text => LogFormat::Text,
            LogFormatName::Json => LogFormat::Json,
        };
        log_to_stderr(&self.log, format).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
    }
}

/// Parses the arguments, does what they say and answers the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // Nothing is left to do when even this cannot be printed.
            return if error.print().is_ok() { code.into() } else { Exit::Failed.into() };
        }
    };
    if matches!(cli.command, Command::Run | Command::Dev(_)) {
        allocator::set_up();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return exit::report(&Failure::new(Exit::Internal, format!("the runtime did not start: {error}")), None);
        }
    };
    let patience = cli.command.patience();
    let result = runtime.block_on(Box::pin(dispatch(cli)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    flush_log(patience);
    match result {
        Ok(()) => Exit::Done.into(),
        Err(failure) => exit::report(&failure, patience),
    }
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let global = cli.global;
    match &cli.command {
        Command::Run => global.refuse_console("run")?,
        Command::Dev(_) => global.refuse_console("dev")?,
        Command::Check => global.refuse_console("check")?,
        Command::Migrate(_) | Command::Adapter(_) | Command::Store(_) | Command::Txn(_) | Command::Trace(_) => {}
        Command::Conflict(_) | Command::Prove(_) | Command::Doctor | Command::Send(_) => {}
    }
    match cli.command {
        Command::Run => run::run(&global).await,
        Command::Dev(args) => Box::pin(dev::dev(&global, args)).await,
        Command::Check => check::check(&global),
        Command::Migrate(args) => migrate::migrate(&global, &args).await,
        Command::Adapter(command) => adapter::adapter(&global, &command).await,
        Command::Store(command) => store::store(&global, &command).await,
        Command::Conflict(command) => conflict::conflict(&global, &command).await,
        Command::Txn(command) => txn::txn(&global, &command).await,
        Command::Trace(args) => trace::trace(&global, &args).await,
        Command::Prove(args) => prove::prove(&global, &args).await,
        Command::Doctor => doctor::doctor(&global).await,
        Command::Send(args) => send::send(&global, &args).await,
    }
}

fn version() -> &'static str {
    const { assert!(SCHEMA_VERSION == 10, "the text below names the schema version") };
    concat!(env!("CARGO_PKG_VERSION"), " (schema 10)")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            ["posthaste", "--output", "json", "adapter", "list"],
            ["posthaste", "adapter", "--output", "json", "list"],
            ["posthaste", "adapter", "list", "--output", "json"],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap().global.output, OutputFormat::Json);
        }
    }
}
