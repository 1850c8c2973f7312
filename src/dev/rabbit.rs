//! A private RabbitMQ.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::folder::Folder;
use super::process::{Plan, Process, end_of, length, text_since};
use super::rabbit_files::{Files, Ports, USER};
use super::{DevError, Options, binaries, checked_name, free_port};

const NAME: &str = "RabbitMQ";
/// Six seconds on a free two-core machine; several times that on a loaded one.
const READY_WITHIN: Duration = Duration::from_secs(120);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A RabbitMQ of our own. Dropped: ended and its folder removed within seconds; `shutdown` waits for that.
pub struct PrivateRabbit {
    /// In a mutex because questions go in through the node's standard input: one at a time.
    node: Mutex<Option<Process>>,
    mapper: Option<Process>,
    script: PathBuf,
    epmd: PathBuf,
    files: Files,
    ports: Ports,
    password: String,
    folder: Folder,
}

impl PrivateRabbit {
    /// Makes a broker (or takes the kept one), starts it and waits until it is booted and answers AMQP.
    ///
    /// # Errors
    /// `Missing` names the package to install; `EndedEarly` and `NotReady` quote the log.
    pub async fn start(options: &Options) -> Result<Self, DevError> {
        let script = binaries::rabbit_server(options)?;
        let epmd = binaries::epmd(options)?;
        let folder = Folder::open("rabbit", options.keep.as_deref(), "rabbitmq").await?;
        let password = folder.secret("password")?;
        let files = Files::make(&folder)?;
        let management = options.management.then_some(0);
        let ports = Ports { amqp: 0, distribution: 0, epmd: 0, management };
        let (node, mapper) = (Mutex::new(None), None);
        let mut server = Self { node, mapper, script, epmd, files, ports, password, folder };
        server.start_on_free_ports().await?;
        Ok(server)
    }

    /// Another process may take a port between its choice and the server's bind: then others are tried.
    async fn start_on_free_ports(&mut self) -> Result<(), DevError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let management = self.ports.management.map(|_| free_port()).transpose()?;
            self.ports = Ports { amqp: free_port()?, distribution: free_port()?, epmd: free_port()?, management };
            match self.start_again().await {
                Err(DevError::EndedEarly { log, .. }) if tries < 5 && log.contains("eaddrinuse") => {}
                other => return other,
            }
        }
    }

    /// Starts it again after `stop` or `kill9`: the same data, the same port.
    ///
    /// # Errors
    /// `RunningAlready`, or as for `start`.
    pub async fn start_again(&mut self) -> Result<(), DevError> {
        if self.pid().is_some() {
            return Err(DevError::RunningAlready { server: NAME });
        }
        self.files.write(&self.folder, self.ports, &self.password)?;
        self.end_mapper().await?;
        self.mapper = Some(self.start_mapper()?);
        let (from, from_console) = (length(&self.files.log), length(&self.files.console));
        let mut node = self.start_node()?;
        let begun = Instant::now();
        while !(text_since(&self.files.log, from).contains("Server startup complete") && self.answers_amqp().await) {
            if node.ended()?.is_some() {
                let log = text_since(&self.files.console, from_console) + &text_since(&self.files.log, from);
                return Err(DevError::EndedEarly { server: NAME, log: last_lines(&log) });
            }
            if begun.elapsed() > READY_WITHIN {
                let log = end_of(&[&self.files.console, &self.files.log]);
                node.kill_family().await?;
                return Err(DevError::NotReady { server: NAME, waited: READY_WITHIN, log });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        *self.node.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(node);
        Ok(())
    }

    fn start_mapper(&self) -> Result<Process, DevError> {
        Process::start(Plan {
            name: "epmd",
            program: &self.epmd,
            arguments: ["-port", &self.ports.epmd.to_string(), "-address", "127.0.0.1"].map(Into::into).to_vec(),
            environment: Vec::new(),
            log: self.files.console.clone(),
            input: false,
            at_once: Signal::SIGTERM,
            folder: &self.folder,
            removes_folder: false,
        })
    }

    fn start_node(&self) -> Result<Process, DevError> {
        Process::start(Plan {
            name: NAME,
            program: &self.script,
            arguments: Vec::new(),
            environment: self.files.environment(self.ports),
            log: self.files.console.clone(),
            input: true,
            at_once: Signal::SIGKILL,
            folder: &self.folder,
            removes_folder: true,
        })
    }

    /// A broker answers the protocol header with a method frame (type 1): connection.start.
    async fn answers_amqp(&self) -> bool {
        let probe = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.ports.amqp)).await?;
            stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
            stream.read_u8().await
        };
        matches!(tokio::time::timeout(Duration::from_secs(2), probe).await, Ok(Ok(1)))
    }

    /// The AMQP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// The node's pid; `None` when it does not run.
    #[must_use]
    pub fn pid(&mut self) -> Option<u32> {
        let node = self.node.get_mut().unwrap_or_else(PoisonError::into_inner);
        match node.as_mut()?.ended() {
            Ok(None) => node.as_ref().map(Process::pid),
            Ok(Some(_)) | Err(_) => {
                *node = None;
                None
            }
        }
    }

    /// Where a client finds a virtual host (`/` is the default one), with user and password: for clients, not for logs.
    #[must_use]
    pub fn url(&self, vhost: &str) -> String {
        let vhost = if vhost == "/" { "%2f" } else { vhost };
        format!("amqp://{USER}:{}@127.0.0.1:{}/{vhost}", self.password, self.ports.amqp)
    }

    /// Where the management plugin listens; `None` when it was started without.
    #[must_use]
    pub fn management_url(&self) -> Option<String> {
        self.ports.management.map(|port| format!("http://127.0.0.1:{port}"))
    }

    /// The server's own log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.files.log
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes an empty virtual host unless it is there, and answers its url. A few hundredths of a second.
    ///
    /// # Errors
    /// `BadName`, `NotRunning`, or what RabbitMQ says.
    pub async fn create_vhost(&self, name: &str) -> Result<String, DevError> {
        let name = checked_name(name)?;
        let answer = self
            .eval(&format!(
                "begin case rabbit_vhost:exists(<<\"{name}\">>) of true -> ok; \
                 false -> ok = rabbit_vhost:add(<<\"{name}\">>, <<\"{USER}\">>) end, \
                 rabbit_auth_backend_internal:set_permissions(<<\"{USER}\">>, <<\"{name}\">>, \
                 <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"{USER}\">>) end"
            ))
            .await?;
        if answer == "ok" {
            Ok(self.url(name))
        } else {
            Err(DevError::Command { doing: "make a virtual host", said: answer })
        }
    }

    /// Evaluates one Erlang expression inside the node and answers its value as Erlang writes it; for what has no
    /// other way, such as raising a memory alarm in a test.
    ///
    /// # Errors
    /// `NotRunning`; `Command` when no answer comes.
    pub async fn eval(&self, expression: &str) -> Result<String, DevError> {
        let from = length(&self.files.console);
        let mark = format!("answer-{}", super::folder::random_hex(8));
        let question = format!("io:format(\"~n{mark} ~0p {mark}~n\", [catch ({expression})]).\n");
        self.ask(&question)?;
        let begun = Instant::now();
        while begun.elapsed() < ANSWER_WITHIN {
            let said = text_since(&self.files.console, from);
            let answer = said.split(&format!("{mark} ")).nth(1).and_then(|rest| rest.split(&format!(" {mark}")).next());
            if let Some(answer) = answer.filter(|_| said.contains(&format!(" {mark}\n"))) {
                return Ok(answer.to_owned());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(DevError::Command { doing: "ask the private RabbitMQ", said: end_of(&[&self.files.console]) })
    }

    fn ask(&self, question: &str) -> Result<(), DevError> {
        let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        let input = node.as_mut().and_then(Process::input).ok_or(DevError::NotRunning { server: NAME })?;
        input.write_all(question.as_bytes()).map_err(DevError::io("ask the private RabbitMQ"))
    }

    /// Ends it as an administrator would; data and port are kept for `start_again`. About a second.
    ///
    /// # Errors
    /// `NotRunning`.
    pub async fn stop(&mut self) -> Result<(), DevError> {
        self.running()?.end(Signal::SIGTERM, Duration::from_secs(20)).await?;
        self.end_mapper().await
    }

    /// Kills it without warning; `start_again` then recovers what was on disk.
    ///
    /// # Errors
    /// `NotRunning`.
    pub async fn kill9(&mut self) -> Result<(), DevError> {
        self.running()?.kill_family().await?;
        self.end_mapper().await
    }

    /// Stops every one of its processes in place: connections stay open and nothing answers.
    ///
    /// # Errors
    /// `NotRunning`; `Command` when one of them still runs after 10 seconds.
    pub async fn pause(&mut self) -> Result<(), DevError> {
        let node = self.node.get_mut().unwrap_or_else(PoisonError::into_inner).as_ref();
        node.ok_or(DevError::NotRunning { server: NAME })?.pause().await
    }

    /// Lets it go on after `pause`.
    ///
    /// # Errors
    /// `NotRunning`.
    pub fn resume(&mut self) -> Result<(), DevError> {
        let node = self.node.get_mut().unwrap_or_else(PoisonError::into_inner).as_ref();
        node.ok_or(DevError::NotRunning { server: NAME })?.signal_family(Signal::SIGCONT);
        Ok(())
    }

    /// Ends it and removes its folder (unless kept); afterwards nothing of it is left.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub async fn shutdown(mut self) -> Result<(), DevError> {
        if let Ok(node) = self.running() {
            if self.folder.removable().is_some() {
                node.kill_family().await?;
            } else {
                node.signal_family(Signal::SIGCONT);
                node.end(Signal::SIGTERM, Duration::from_secs(20)).await?;
            }
        }
        self.end_mapper().await?;
        self.folder.remove()
    }

    async fn end_mapper(&mut self) -> Result<(), DevError> {
        match self.mapper.take() {
            Some(mapper) => mapper.end(Signal::SIGTERM, Duration::from_secs(2)).await,
            None => Ok(()),
        }
    }

    fn running(&mut self) -> Result<Process, DevError> {
        let alive = self.pid().is_some();
        let node = self.node.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        node.filter(|_| alive).ok_or(DevError::NotRunning { server: NAME })
    }
}

impl fmt::Debug for PrivateRabbit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateRabbit")
            .field("port", &self.ports.amqp)
            .field("folder", &self.folder.path())
            .finish_non_exhaustive()
    }
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(15)).map(|line| format!("  {line}\n")).collect()
}
