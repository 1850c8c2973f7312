//! `posthaste dev`: everything on one machine, for the first look and for daily work.
//!
//! This is the command's own part: its options, its ports, its servers and what it tells the user. Migrating and running
//! the engine on them is done by the caller.

mod banner;
mod places;

pub use banner::{Application, FirstApi};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use secrecy::SecretString;
use thiserror::Error;

use super::run::{listen, told_to_stop_or_left_alone};
use super::{DEFAULT_RESOURCES, Exit, Failure, Global, output};
use crate::app;
use crate::config::Settings;
use crate::dev::{Action, DevError, Options, PortHolder, RunningDev, Server, Session, Wanted, ask_running};
use crate::telemetry::MetricsHandle;
use banner::{Banner, Place};
use places::{databases_for, given_postgres, http_ports};

/// Run everything on this machine: private servers, the database schema, the application.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevArgs {
    #[command(subcommand)]
    pub action: Option<DevAction>,
    /// Port of the HTTP API; the console takes the next one. 0 takes two free ones.
    #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(..=65534))]
    pub port: u16,
    /// Use this PostgreSQL instead of a private one. With several `postgres` entries, the database is replaced by the
    /// entry's name.
    #[arg(long, value_name = "URL", env = "POSTHASTE_DEV_POSTGRES", hide_env_values = true)]
    pub postgres: Option<String>,
    /// Use this RabbitMQ instead of a private one.
    #[arg(long, value_name = "URL", env = "POSTHASTE_DEV_AMQP", hide_env_values = true)]
    pub amqp: Option<String>,
    /// Keep the data of the private servers in this folder, and go on with what is there.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// What to do to a server of the `posthaste dev` that runs.
#[derive(Debug, Clone, Subcommand)]
pub enum DevAction {
    /// Stop one of its servers, to see what failure looks like.
    Stop(Target),
    /// Start it again, with its data and on its port.
    Start(Target),
}

#[derive(Debug, Clone, Args)]
pub struct Target {
    /// postgres or rabbitmq
    #[arg(value_name = "postgres|rabbitmq")]
    pub server: Server,
    /// The `posthaste dev` to talk to, when several run.
    #[arg(long)]
    pub pid: Option<u32>,
}

/// Why `posthaste dev` does not start. Nothing is left running.
#[derive(Debug, Error)]
pub enum DevCommandError {
    #[error("port {port} is taken{}; choose another with --port, or take free ones with --port 0", by(holder.as_ref()))]
    PortTaken { port: u16, holder: Option<PortHolder> },
    #[error("the URL of --{option} cannot be read")]
    Url { option: &'static str, source: url::ParseError },
    #[error("the URL of --postgres asks for TLS by sslmode, which is not available in this version")]
    Tls,
    #[error("two postgres entries would use the database {0:?}: rename one")]
    SameDatabase(String),
    #[error(transparent)]
    Server(#[from] DevError),
}

fn by(holder: Option<&PortHolder>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}

/// Everything the caller needs to migrate and to run.
pub struct DevServers {
    session: Session,
    /// `(entry name, url)` for each `postgres` entry, in the order given. Passwords inside: not for logs.
    pub postgres: Vec<(String, String)>,
    /// For every `amqp` entry. A password inside: not for logs.
    pub amqp: String,
    pub api: SocketAddr,
    pub console: SocketAddr,
    keep: Option<PathBuf>,
}

/// `posthaste dev`: servers, schema, engine, in one process.
pub async fn dev(global: &Global, args: DevArgs) -> Result<(), Failure> {
    if let Some(action) = &args.action {
        let told = act(action).await.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        return output::print(&format!("{told}\n"));
    }
    let mut stop = std::pin::pin!(told_to_stop_or_left_alone()?);
    global.start_logging()?;
    let mut settings = global.load()?;
    let entries: Vec<String> = settings.postgres.iter().map(|postgres| postgres.name.clone()).collect();
    let servers = tokio::select! {
        prepared = prepare(&args, &entries) => {
            prepared.map_err(|error| Failure::new(Exit::Failed, with_causes(&error)))?
        }
        // What was starting is ended by its leash.
        () = &mut stop => return Ok(()),
    };
    let ended = run_on(global, &servers, &mut settings, &mut stop).await;
    let shut = servers.shutdown().await.map_err(|error| Failure::new(Exit::Failed, with_causes(&error)));
    ended.and(shut)
}

/// Migrates and runs on the servers, until the stop.
async fn run_on(
    global: &Global,
    servers: &DevServers,
    settings: &mut Settings,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let usual = global.resources == Path::new(DEFAULT_RESOURCES) && settings.console.listen == servers.console;
    take_over(settings, &servers.told()).map_err(Failure::internal)?;
    let metrics = MetricsHandle::install().map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let mut stop = std::pin::pin!(stop);
    let mut report = app::MigrationReport::default();
    tokio::select! {
        migrated = app::migrate(settings, false, None, &mut report) => migrated?,
        () = &mut stop => return Ok(()),
    }
    let listeners = listen(servers.api, servers.console).await?;
    let program = std::env::args().next().unwrap_or_else(|| "posthaste".to_owned());
    let first_api = settings.inbound.first().map(|first| FirstApi::of(first, settings, &global.configurations));
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let run =
        Box::pin(app::run(settings.clone(), listeners, metrics, app::Told { ready: Some(ready), goes_on: None }, stop));
    // Not before it can be done: the reader's first curl shall work.
    let greet = async {
        if is_ready.await.is_ok() {
            let application = Application { program: &program, finds_console: usual, first_api };
            output::print_aside(servers.banner(application).await).await?;
        }
        std::future::pending::<Result<(), Failure>>().await
    };
    tokio::select! {
        ended = run => Ok(ended?),
        failed = greet => failed,
        () = servers.serve() => Err(Failure::new(Exit::Internal, "the control socket was closed")),
    }
}

/// Every postgres and amqp entry now means the servers of a `posthaste dev`.
///
/// # Errors
/// It has no database for an entry: it was started with other files.
pub(super) fn take_over(settings: &mut Settings, dev: &RunningDev) -> Result<(), String> {
    for postgres in &mut settings.postgres {
        let Some((_, url)) = dev.postgres.iter().find(|(name, _)| *name == postgres.name) else {
            return Err(format!(
                "`posthaste dev` (pid {}) has no database for the postgres entry {}: it was started with other files",
                dev.pid, postgres.name
            ));
        };
        postgres.url = SecretString::from(url.clone());
        postgres.username = None;
        postgres.password = None;
    }
    for amqp in &mut settings.amqp {
        amqp.url = SecretString::from(dev.amqp.clone());
        amqp.username = None;
        amqp.password = None;
    }
    settings.api.listen = dev.api;
    settings.console.listen = dev.console;
    Ok(())
}

fn with_causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_causes(cause)),
        None => error.to_string(),
    }
}

/// `posthaste dev stop|start`: answers what to tell the user.
///
/// # Errors
/// No `posthaste dev` runs, several do, or it refuses.
pub async fn act(action: &DevAction) -> Result<String, DevError> {
    match action {
        DevAction::Stop(target) => ask_running(target.pid, Action::Stop, target.server).await,
        DevAction::Start(target) => ask_running(target.pid, Action::Start, target.server).await,
    }
}

/// Takes the ports and starts the servers, a private database for each `postgres` entry of resources.yml.
///
/// # Errors
/// `PortTaken` before anything is started; otherwise as for the servers.
pub async fn prepare(args: &DevArgs, postgres_entries: &[String]) -> Result<DevServers, DevCommandError> {
    let (api, console) = http_ports(args.port)?;
    let databases = databases_for(postgres_entries)?;
    let given = args.postgres.as_deref().map(|url| given_postgres(url, postgres_entries)).transpose()?;
    if let Some(url) = &args.amqp {
        url::Url::parse(url).map_err(|source| DevCommandError::Url { option: "amqp", source })?;
    }
    let session = Session::start(&Wanted {
        databases: given.is_none().then(|| databases.clone()),
        rabbit: args.amqp.is_none(),
        options: Options { keep: args.keep.clone(), ..Options::default() },
    })
    .await?;
    let postgres = match given {
        Some(given) => given,
        None => private_postgres(&session, postgres_entries, &databases).await?,
    };
    let amqp = match &args.amqp {
        Some(given) => given.clone(),
        None => session.rabbit().await.ok_or(DevError::NotRunning { server: "RabbitMQ" })?.url,
    };
    Ok(DevServers { session, postgres, amqp, api, console, keep: args.keep.clone() })
}

async fn private_postgres(
    session: &Session,
    entries: &[String],
    databases: &[String],
) -> Result<Vec<(String, String)>, DevError> {
    let mut urls = Vec::new();
    for (entry, database) in entries.iter().zip(databases) {
        let running = session.postgres(database).await.ok_or(DevError::NotRunning { server: "PostgreSQL" })?;
        urls.push((entry.clone(), running.url));
    }
    Ok(urls)
}

impl DevServers {
    /// Answers other commands until it is dropped; run it beside the engine.
    pub async fn serve(&self) {
        self.session.serve(&self.told()).await;
    }

    /// What other commands of this user are told.
    #[must_use]
    pub fn told(&self) -> RunningDev {
        let (postgres, amqp) = (self.postgres.clone(), self.amqp.clone());
        RunningDev { pid: std::process::id(), api: self.api, console: self.console, postgres, amqp }
    }

    /// Ends the private servers and removes what is not to be kept.
    ///
    /// # Errors
    /// Something is left behind; the message says what.
    pub async fn shutdown(&self) -> Result<(), DevError> {
        self.session.shutdown().await
    }

    /// What the user reads when everything is up. Shows the passwords of private servers, of no others.
    pub async fn banner(&self, application: Application<'_>) -> String {
        let mut postgres = Vec::new();
        for (entry, url) in &self.postgres {
            let private = self.session.postgres("postgres").await;
            postgres.push(Place::new(entry, url, private));
        }
        let rabbit = Place::new("", &self.amqp, self.session.rabbit().await);
        let (api, console, keep) = (self.api, self.console, self.keep.as_deref());
        Banner { application, api, console, pid: std::process::id(), keep, postgres, rabbit }.to_string()
    }
}
