//! `posthaste dev`: everything on one machine, for the first look and for daily work.
//!
//! This is the command's own part: its options, its ports, its servers and what it tells the user. Migrating and running
//! the engine on them is done by the caller.

mod banner;

pub use banner::{Application, FirstApi};

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use secrecy::SecretString;
use thiserror::Error;

use super::run::{listen, told_to_stop};
use super::{Exit, Failure, Global, output};
use crate::app;
use crate::config::Settings;
use crate::telemetry::MetricsHandle;

use crate::dev::{Action, DevError, Options, PortHolder, Server, Session, Wanted, ask_running, free_port, holder_of};
use banner::{Banner, Place};

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
    global.start_logging()?;
    let mut settings = global.load()?;
    let mut stop = std::pin::pin!(told_to_stop()?);
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
    take_over(settings, servers);
    let metrics = MetricsHandle::install().map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        migrated = app::migrate(settings, false, None) => migrated.map(|_report| ())?,
        () = &mut stop => return Ok(()),
    }
    let listeners = listen(servers.api, servers.console).await?;
    let program = std::env::args().next().unwrap_or_else(|| "posthaste".to_owned());
    let first = settings.inbound.first().map(|one| (one.method.to_string(), format!("/api{}", one.uri_pattern)));
    let message = first_message(settings, &global.configurations);
    let first_api = first.as_ref().map(|(method, path)| FirstApi { method, path, message: message.as_deref() });
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let run = Box::pin(app::run(settings.clone(), listeners, metrics, Some(ready), stop));
    // Not before it can be done: the reader's first curl shall work.
    let greet = async {
        if is_ready.await.is_ok() {
            output::print_aside(servers.banner(Application { program: &program, first_api }).await).await?;
        }
        std::future::pending::<Result<(), Failure>>().await
    };
    tokio::select! {
        ended = run => Ok(ended?),
        failed = greet => failed,
        () = servers.serve() => Err(Failure::new(Exit::Internal, "the control socket was closed")),
    }
}

/// `first-message.json` beside the adapters.yml of the first API listener, if it is there.
fn first_message(settings: &Settings, configurations: &Path) -> Option<PathBuf> {
    let first = settings.inbound.first()?;
    let adapter = settings.adapters.iter().find(|adapter| adapter.name == first.adapter)?;
    let file = configurations.join(&adapter.configuration).join("first-message.json");
    file.is_file().then_some(file)
}

/// Every postgres and amqp entry now means the servers of this command.
fn take_over(settings: &mut Settings, servers: &DevServers) {
    for postgres in &mut settings.postgres {
        if let Some((_, url)) = servers.postgres.iter().find(|(name, _)| *name == postgres.name) {
            postgres.url = SecretString::from(url.clone());
            postgres.username = None;
            postgres.password = None;
        }
    }
    for amqp in &mut settings.amqp {
        amqp.url = SecretString::from(servers.amqp.clone());
        amqp.username = None;
        amqp.password = None;
    }
    settings.api.listen = servers.api;
    settings.console.listen = servers.console;
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

/// The API's and the console's address, both free a moment ago.
fn http_ports(port: u16) -> Result<(SocketAddr, SocketAddr), DevCommandError> {
    let on_loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if port == 0 {
        return Ok((on_loopback(free_port()?), on_loopback(free_port()?)));
    }
    for port in [port, port + 1] {
        if TcpListener::bind(on_loopback(port)).is_err() {
            return Err(DevCommandError::PortTaken { port, holder: holder_of(port) });
        }
    }
    Ok((on_loopback(port), on_loopback(port + 1)))
}

/// A database name for each entry: the entry's own, made plain; PostgreSQL's own databases are left alone.
fn databases_for(entries: &[String]) -> Result<Vec<String>, DevCommandError> {
    let mut databases: Vec<String> = Vec::new();
    for entry in entries {
        let plain: String =
            entry.chars().take(48).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
        let database = match plain.as_str() {
            "postgres" | "template0" | "template1" | "" => format!("dev_{plain}"),
            _ => plain,
        };
        if databases.contains(&database) {
            return Err(DevCommandError::SameDatabase(database));
        }
        databases.push(database);
    }
    Ok(databases)
}

/// The given server for each entry: the url as it is for a single one, else with the entry's name as the database.
fn given_postgres(url: &str, entries: &[String]) -> Result<Vec<(String, String)>, DevCommandError> {
    let parsed = url::Url::parse(url).map_err(|source| DevCommandError::Url { option: "postgres", source })?;
    if let [only] = entries {
        return Ok(vec![(only.clone(), url.to_owned())]);
    }
    let of_entry = |entry: &String| {
        let mut url = parsed.clone();
        url.set_path(entry);
        (entry.clone(), url.to_string())
    };
    Ok(entries.iter().map(of_entry).collect())
}

impl DevServers {
    /// Answers `posthaste dev stop|start` until it is dropped; run it beside the engine.
    pub async fn serve(&self) {
        self.session.serve().await;
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
        Banner { application, api, console, keep, postgres, rabbit }.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_postgres_entry_gets_a_database_of_its_own() {
        let entries = ["main", "Bill ing.2", "postgres"].map(str::to_owned);
        assert_eq!(databases_for(&entries).unwrap(), ["main", "Bill_ing_2", "dev_postgres"]);
        let refused = databases_for(&["a.b".to_owned(), "a b".to_owned()]).unwrap_err().to_string();
        assert_eq!(refused, "two postgres entries would use the database \"a_b\": rename one");
    }

    #[test]
    fn a_given_postgres_is_taken_as_it_is_for_one_entry_and_by_name_for_several() {
        let url = "postgres://u:p%40ss@db:5432/app?sslmode=disable";
        assert_eq!(given_postgres(url, &["main".into()]).unwrap(), [("main".to_owned(), url.to_owned())]);
        let several = given_postgres(url, &["main".into(), "other".into()]).unwrap();
        assert_eq!(several[1].1, "postgres://u:p%40ss@db:5432/other?sslmode=disable");
    }

    #[test]
    fn a_taken_http_port_is_refused_with_its_holder() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port().unwrap())).unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = http_ports(port).unwrap_err().to_string();
        let start = format!("port {port} is taken by pid {} (", std::process::id());
        assert!(refused.starts_with(&start) && refused.ends_with("take free ones with --port 0"), "{refused}");
        let (api, console) = http_ports(0).unwrap();
        assert!(api.port() != 0 && console.port() != 0 && api != console);
    }
}
