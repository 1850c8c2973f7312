//! The real binary with one of the repository's applications, in databases and a virtual host of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use posthaste::dev::{PrivatePostgres, free_port, fresh_name};
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::application::Application;
use super::database::Database;
use super::{LONG, Reply, SOON, Servers, client, eventually, files, queue};

/// What a test wants different from the rest.
#[derive(Default)]
pub struct Options {
    /// More lines under `http.api` in resources.yml, each as `key: value`.
    pub api: &'static [&'static str],
    /// The queue's `retryDelays`. Default: short, so that six attempts take half a second.
    pub retry_delays: Option<&'static str>,
    /// What is installed.
    pub application: Application,
    /// Where the databases beside the home are. Default: on the home's server.
    pub beside: Option<Arc<Mutex<PrivatePostgres>>>,
}

/// One installation: files, database, virtual host, and the process while it runs.
pub struct App {
    /// They live at least as long as what uses them.
    pub servers: Arc<Servers>,
    pub db: Database,
    pub api: SocketAddr,
    pub console: SocketAddr,
    pub http: reqwest::Client,
    pub application: Application,
    /// As resources.yml has them, the home first.
    postgres_urls: Vec<String>,
    pub(super) amqp_url: String,
    pub(super) folder: TempDir,
    process: Option<Running>,
}

struct Running {
    child: Child,
    /// Ends the process when the tests are killed: it reads from a pipe that closes with them.
    leash: Child,
}

impl App {
    /// Installed, migrated, running and ready.
    pub async fn start(servers: Arc<Servers>) -> Self {
        Self::start_with(servers, Options::default()).await
    }

    pub async fn start_with(servers: Arc<Servers>, options: Options) -> Self {
        let mut app = Self::install(servers, options).await;
        app.run();
        app.ready(LONG).await;
        app
    }

    /// Installed and migrated, but not running.
    pub async fn install(servers: Arc<Servers>, options: Options) -> Self {
        let app = Self::lay_out(servers, options).await;
        app.migrate();
        app
    }

    /// Files, empty databases and an empty virtual host.
    pub async fn lay_out(servers: Arc<Servers>, options: Options) -> Self {
        let name = fresh_name("it");
        let mut postgres_urls = Vec::new();
        for (number, entry) in options.application.databases().iter().enumerate() {
            let server = options.beside.as_deref().filter(|_| number > 0).unwrap_or(&servers.postgres);
            let database = if number == 0 { name.clone() } else { format!("{name}_{entry}") };
            postgres_urls.push(server.lock().await.create_database(&database).await.unwrap());
        }
        let amqp_url = servers.rabbit.lock().await.create_vhost(&name).await.unwrap();
        Self::with_files(servers, postgres_urls, amqp_url, options)
    }

    /// Another instance of the same installation: same servers, database and queue, other addresses; not running.
    pub fn sibling(&self) -> Self {
        let (postgres_urls, amqp_url) = (self.postgres_urls.clone(), self.amqp_url.clone());
        let options = Options { application: self.application, ..Options::default() };
        Self::with_files(Arc::clone(&self.servers), postgres_urls, amqp_url, options)
    }

    /// An instance like this one whose home is another database; not running.
    pub fn on_copy(&self, home: &str) -> Self {
        let mut postgres_urls = self.postgres_urls.clone();
        home.clone_into(&mut postgres_urls[0]);
        let options = Options { application: self.application, ..Options::default() };
        Self::with_files(Arc::clone(&self.servers), postgres_urls, self.amqp_url.clone(), options)
    }

    fn with_files(servers: Arc<Servers>, postgres_urls: Vec<String>, amqp_url: String, options: Options) -> Self {
        let [api, console] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())));

        let folder = TempDir::new().unwrap();
        let resources = files::resources(&postgres_urls, &amqp_url, api, console, &options);
        fs::write(folder.path().join("resources.yml"), resources).unwrap();
        let application = options.application;
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(application.folder());
        files::copy(&from, &folder.path().join("configurations").join(from.file_name().unwrap()));

        let db = Database::new(postgres_urls[0].parse().unwrap());
        let http = client::new();
        Self { servers, db, api, console, http, application, postgres_urls, amqp_url, folder, process: None }
    }

    /// The url of one of its databases, by the name of its entry.
    pub fn url_of(&self, entry: &str) -> String {
        let at = self.application.databases().iter().position(|name| *name == entry).unwrap();
        self.postgres_urls[at].clone()
    }

    pub fn database(&self, entry: &str) -> Database {
        Database::new(self.url_of(entry).parse().unwrap())
    }

    /// Must succeed.
    pub fn migrate(&self) {
        let migrated = self.command(&["migrate"]);
        assert!(migrated.status.success(), "migrate: {migrated:?}");
    }

    pub fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.args(["--resources", "resources.yml", "--configurations", "configurations"]);
        command.env_remove("POSTHASTE_RESOURCES").env_remove("POSTHASTE_CONFIGURATIONS");
        command
    }

    /// Runs another command of the binary on this installation, to its end.
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.prepare(arguments).output().unwrap()
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.path().join("posthaste.log")
    }

    /// Starts the process, on the same ports as before.
    pub fn run(&mut self) {
        self.run_with(&[]);
    }

    /// Starts the process with more options.
    pub fn run_with(&mut self, options: &[&str]) {
        self.start_process(self.prepare(&[&["run"], options].concat()));
    }

    pub fn start_process(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut leash = Command::new("/bin/sh");
        leash.args(["-c", r#"cat >/dev/null; kill -KILL "$1""#, "leash", &child.id().to_string()]);
        let leash = leash.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        self.process = Some(Running { child, leash });
    }

    /// Answers its exit status if it had ended by itself before.
    pub async fn kill9(&mut self) -> Option<i32> {
        self.signal(Signal::SIGKILL);
        self.ended(SOON).await
    }

    /// Asks it to stop, and answers its exit status.
    pub async fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.ended(Duration::from_secs(30)).await
    }

    /// Asks it to stop, and waits for nothing.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Freezes the process: its connections stay open, and it does nothing.
    pub async fn freeze(&self) {
        posthaste::dev::stop_in_place(self.pid().cast_unsigned()).await.unwrap();
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// The process that runs.
    pub fn pid(&self) -> i32 {
        self.process.as_ref().expect("it does not run").child.id().cast_signed()
    }

    /// Waits until the process has ended by itself, and answers its exit status.
    pub async fn ended(&mut self, bound: Duration) -> Option<i32> {
        let mut running = self.process.take().expect("it does not run");
        let status = eventually("the process ends", bound, async || {
            running.child.try_wait().unwrap().ok_or_else(|| "still running".to_owned())
        });
        let status = status.await;
        running.release();
        status.code()
    }

    /// The exit status of a process that has ended by itself: it does not run any more.
    pub fn has_ended(&mut self) -> Option<Option<i32>> {
        let status = self.process.as_mut().expect("it does not run").child.try_wait().unwrap()?;
        if let Some(mut running) = self.process.take() {
            running.release();
        }
        Some(status.code())
    }

    /// Waits until a POST would be accepted.
    pub async fn ready(&mut self, bound: Duration) {
        eventually("/readyz answers 200", bound, async || self.accepts().await).await;
    }

    /// Whether a POST would be accepted, or what `/readyz` says.
    pub async fn accepts(&self) -> Result<(), String> {
        match self.try_readyz().await {
            Ok(reply) if reply.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Waits until a POST would be refused, and answers what `/readyz` says about it.
    pub async fn not_ready(&self, bound: Duration) -> Reply {
        let probe = async || match self.try_readyz().await {
            Ok(reply) if reply.status == 503 => Ok(reply),
            other => Err(format!("{other:?}")),
        };
        eventually("/readyz answers 503", bound, probe).await
    }

    pub async fn try_readyz(&self) -> reqwest::Result<Reply> {
        let request = client::request(&self.http, Method::GET, self.console, "/readyz");
        client::try_send(request.timeout(Duration::from_secs(5))).await
    }

    /// POSTs a text to the application under a message id.
    pub async fn post(&self, message_id: &str, body: &str) -> Reply {
        self.post_with(&[("Message-Id", message_id)], body).await
    }

    pub async fn post_with(&self, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = client::request(&self.http, Method::POST, self.api, self.application.path());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        client::send(request.header("Content-Type", "text/plain").body(body.to_owned())).await
    }

    /// POSTs to an adapter that a test has added.
    pub async fn post_to(&self, path: &str, id: &str, body: &str) -> Reply {
        let request = client::request(&self.http, Method::POST, self.api, path);
        client::send(request.header("Message-Id", id).header("Content-Type", "text/plain").body(body.to_owned())).await
    }

    /// The same, to a process that may not answer.
    pub async fn try_post_to(&self, path: &str, id: &str, body: &str) -> reqwest::Result<Reply> {
        let request = client::request(&self.http, Method::POST, self.api, path).header("Message-Id", id);
        client::try_send(request.header("Content-Type", "text/plain").body(body.to_owned())).await
    }

    /// A request to the public address.
    pub async fn api(&self, method: Method, path: &str) -> Reply {
        client::send(client::request(&self.http, method, self.api, path)).await
    }

    /// A request to the management address. On a connection of its own: one that was idle may be closed just when it is used.
    pub async fn console(&self, method: Method, path: &str) -> Reply {
        let request = client::request(&self.http, method, self.console, path);
        client::send(request.header("Connection", "close")).await
    }

    /// The body of a GET at the management address that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let reply = self.console(Method::GET, path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }

    /// The state of an adapter as the management API shows it.
    pub async fn adapter_state(&self, adapter: &str) -> String {
        let adapters = self.get("/api/v1/adapters").await;
        let found = adapters["items"].as_array().unwrap().iter().find(|entry| entry["name"] == adapter);
        let found = found.unwrap_or_else(|| panic!("no {adapter} in {adapters}"));
        found["state"].as_str().unwrap_or_else(|| panic!("no state in {found}")).to_owned()
    }

    /// The error store's rows as the management API lists them.
    pub async fn errors(&self) -> Vec<Value> {
        let page = self.get(&format!("/api/v1/stores/{}/messages?type=E", self.application.error_slot())).await;
        page["items"].as_array().unwrap_or_else(|| panic!("no list in {page}")).clone()
    }

    /// Ready messages in the queue.
    pub async fn depth(&self) -> Result<u64, String> {
        queue::depth(&self.amqp_url, self.application.queue()).await
    }

    /// What the process has logged with these words.
    pub fn log_lines(&self, words: &str) -> Vec<String> {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }

    /// The last lines of the process's log.
    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Running {
    /// The pid is free for others from now on.
    fn release(&mut self) {
        let _gone_already = self.leash.kill();
        let _reaped = self.leash.wait();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(mut running) = self.process.take() {
            let _gone_already = running.child.kill();
            let _reaped = running.child.wait();
            running.release();
        }
        if std::thread::panicking() {
            eprintln!("--- the last lines of the log of {}:\n{}\n---", self.db.name(), self.log_tail());
        }
    }
}
