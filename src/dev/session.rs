//! The servers of one `posthaste dev`, and the socket through which another `posthaste dev stop|start` reaches them.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;

use super::folder::Folder;
use super::running::{ABOUT, RunningDev};
use super::{DevError, Options, PrivatePostgres, PrivateRabbit};

pub(super) const SOCKET: &str = "control.sock";
/// A request is a few words.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Postgres,
    Rabbitmq,
}

/// What may be done to a server while `posthaste dev` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Stop,
    Start,
}

/// Which servers are private, and where their data are.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Start a private PostgreSQL with these databases; `None`: the user brings one.
    pub databases: Option<Vec<String>>,
    /// Start a private RabbitMQ; `false`: the user brings one.
    pub rabbit: bool,
    pub options: Options,
}

/// The private servers of one `posthaste dev`.
pub struct Session {
    servers: Mutex<Servers>,
    control: UnixListener,
    folder: Folder,
}

struct Servers {
    postgres: Option<PrivatePostgres>,
    rabbit: Option<PrivateRabbit>,
}

/// Where a private server is, for the banner. Holds a password: not for logs.
pub struct Running {
    pub url: String,
    pub pid: u32,
    pub log: PathBuf,
}

impl Session {
    /// Starts what is wanted, at the same time, with its databases.
    ///
    /// # Errors
    /// As for the servers; nothing is left running.
    pub async fn start(wanted: &Wanted) -> Result<Self, DevError> {
        let folder = Folder::open("dev", None, "nobody").await?;
        let postgres = async {
            let Some(databases) = &wanted.databases else { return Ok(None) };
            let server = PrivatePostgres::start(&wanted.options).await?;
            for database in databases {
                server.create_database(database).await?;
            }
            Ok(Some(server))
        };
        let rabbit =
            async { if wanted.rabbit { PrivateRabbit::start(&wanted.options).await.map(Some) } else { Ok(None) } };
        let (postgres, rabbit) = tokio::try_join!(postgres, rabbit)?;
        let control = control_socket(folder.path())?;
        Ok(Self { servers: Mutex::new(Servers { postgres, rabbit }), control, folder })
    }

    /// The private PostgreSQL, with the url of one of its databases; `None` when there is none or it does not run.
    pub async fn postgres(&self, database: &str) -> Option<Running> {
        let mut servers = self.servers.lock().await;
        let server = servers.postgres.as_mut()?;
        Some(Running { pid: server.pid()?, url: server.url(database), log: server.log().to_owned() })
    }

    /// The private RabbitMQ, with the url of its default virtual host; `None` when there is none or it does not run.
    pub async fn rabbit(&self) -> Option<Running> {
        let mut servers = self.servers.lock().await;
        let server = servers.rabbit.as_mut()?;
        Some(Running { pid: server.pid()?, url: server.url("/"), log: server.log().to_owned() })
    }

    /// Stops or starts a server while the rest runs; answers what to tell the user.
    ///
    /// # Errors
    /// `NotRunning`, `RunningAlready`, `NotPrivate`, or as for the server.
    pub async fn act(&self, action: Action, server: Server) -> Result<String, DevError> {
        let mut servers = self.servers.lock().await;
        let Servers { postgres, rabbit } = &mut *servers;
        let pid = match (server, postgres, rabbit) {
            (Server::Postgres, Some(postgres), _) => match action {
                Action::Stop => postgres.stop().await.map(|()| None)?,
                Action::Start => postgres.start_again().await.map(|()| postgres.pid())?,
            },
            (Server::Rabbitmq, _, Some(rabbit)) => match action {
                Action::Stop => rabbit.stop().await.map(|()| None)?,
                Action::Start => rabbit.start_again().await.map(|()| rabbit.pid())?,
            },
            (Server::Postgres, None, _) | (Server::Rabbitmq, _, None) => {
                return Err(DevError::NotPrivate { server: server.title() });
            }
        };
        Ok(match pid {
            Some(pid) => format!("{} runs again, pid {pid}", server.title()),
            None => format!("{} is stopped; `posthaste dev start {server}` starts it again", server.title()),
        })
    }

    /// Answers other processes of this user until it is dropped: what is there, and `posthaste dev stop|start`. Never
    /// ends by itself.
    pub async fn serve(&self, about: &RunningDev) {
        let requests = stream::unfold((), async |()| {
            loop {
                match self.control.accept().await {
                    Ok((stream, _)) => return Some((stream, ())),
                    // Out of file descriptors, say: the next one may fare better.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        // Who only asks does not wait until a server is started.
        requests.for_each_concurrent(None, |stream| self.answer(stream, about)).await;
    }

    async fn answer(&self, stream: UnixStream, about: &RunningDev) {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(reader, 100));
        let read = tokio::time::timeout(REQUEST_WITHIN, reader.read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(_))) {
            return;
        }
        let answer = match request_in(&line) {
            None if line.trim() == ABOUT => match serde_json::to_string(about) {
                Ok(about) => format!("ok {about}"),
                Err(error) => format!("no {error}"),
            },
            Some((action, server)) => match self.act(action, server).await {
                Ok(done) => format!("ok {done}"),
                Err(refused) => format!("no {}", with_causes(&refused)),
            },
            None => "no such request".to_owned(),
        };
        // Who asked may be gone; what was asked is done all the same.
        let _gone = tokio::time::timeout(REQUEST_WITHIN, writer.write_all(answer.as_bytes())).await;
    }

    /// Ends the servers and removes what is not to be kept.
    ///
    /// # Errors
    /// The first failure; the other server is ended all the same.
    pub async fn shutdown(&self) -> Result<(), DevError> {
        let (postgres, rabbit) = {
            let mut servers = self.servers.lock().await;
            (servers.postgres.take(), servers.rabbit.take())
        };
        let end_postgres = async {
            match postgres {
                Some(server) => server.shutdown().await,
                None => Ok(()),
            }
        };
        let end_rabbit = async {
            match rabbit {
                Some(server) => server.shutdown().await,
                None => Ok(()),
            }
        };
        let (postgres, rabbit) = tokio::join!(end_postgres, end_rabbit);
        self.folder.remove()?;
        postgres.and(rabbit)
    }
}

impl Server {
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Rabbitmq => "RabbitMQ",
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::Rabbitmq => "rabbitmq",
        })
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "postgres" => Ok(Self::Postgres),
            "rabbitmq" => Ok(Self::Rabbitmq),
            _ => Err(format!("{name:?} is neither postgres nor rabbitmq")),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Start => "start",
        })
    }
}

/// The longest path of a socket, in bytes.
const LONGEST_SOCKET: usize = 107;

fn control_socket(folder: &Path) -> Result<UnixListener, DevError> {
    let path = folder.join(SOCKET);
    if path.as_os_str().len() > LONGEST_SOCKET {
        return Err(DevError::LongPath(path));
    }
    let listener = UnixListener::bind(&path).map_err(DevError::io(format!("listen on {}", path.display())))?;
    let only_me = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&path, only_me).map_err(DevError::io(format!("close {} to others", path.display())))?;
    Ok(listener)
}

/// An error and its causes in one line, as another process is to show it.
fn with_causes(error: &DevError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn request_in(line: &str) -> Option<(Action, Server)> {
    let (action, server) = line.trim().split_once(' ')?;
    let action = match action {
        "stop" => Action::Stop,
        "start" => Action::Start,
        _ => return None,
    };
    Some((action, server.parse().ok()?))
}
