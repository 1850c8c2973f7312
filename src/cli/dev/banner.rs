//! What `posthaste dev` tells the user when everything is up.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::dev::Running;
use crate::inbound::{self, Accept, InboundSettings};

/// What the banner needs to know of the application.
#[derive(Debug, Clone)]
pub struct Application<'a> {
    /// How the user calls this program, such as `target/release/posthaste`.
    pub program: &'a str,
    /// Whether other commands look for the console where it is, without being told.
    pub finds_console: bool,
    /// The first API listener; `None` when there is none.
    pub first_api: Option<FirstApi>,
}

/// Where a first message goes, what it may be, and what becomes of it.
#[derive(Debug, Clone)]
pub struct FirstApi {
    /// Such as `POST`.
    pub method: String,
    /// Such as `/api/write`.
    pub path: String,
    /// The header of the message id.
    pub id_header: String,
    /// A file of the configuration with a JSON message; `None` when any text will do.
    pub message: Option<PathBuf>,
    /// The answer to a repeat; `None` when it is another message.
    pub repeat: Option<u16>,
    /// Nothing is accepted while RabbitMQ is away.
    pub needs_broker: bool,
}

impl FirstApi {
    pub(super) fn of(first: &InboundSettings, settings: &Settings, configurations: &Path) -> Self {
        let senders = !inbound::Path::of(first, &settings.adapters).senders().is_empty();
        Self {
            method: first.method.to_string(),
            path: format!("/api{}", first.uri_pattern),
            id_header: first.message_id_headers.first().map_or_else(|| "Message-Id".to_owned(), canonical),
            message: first_message(first, settings, configurations),
            repeat: first.check_for_duplicates.map(|_key| first.duplicate_status.as_u16()),
            needs_broker: senders && first.accept == Accept::Confirmed,
        }
    }
}

/// As people write it: `Message-Id`.
fn canonical(header: &axum::http::HeaderName) -> String {
    let capital = |part: &str| {
        let mut chars = part.chars();
        chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
    };
    header.as_str().split('-').map(capital).collect::<Vec<_>>().join("-")
}

/// `first-message.json` beside the adapters.yml of the first API listener, if it is there. Absolute: the reader's other
/// terminal may be elsewhere.
fn first_message(first: &InboundSettings, settings: &Settings, configurations: &Path) -> Option<PathBuf> {
    let adapter = settings.adapters.iter().find(|adapter| adapter.name == first.adapter)?;
    let file = configurations.join(&adapter.configuration).join("first-message.json");
    file.is_file().then(|| std::path::absolute(&file).unwrap_or(file))
}

/// One server as the user sees it.
pub(super) struct Place {
    name: String,
    url: String,
    /// Its pid and its log, when it is ours.
    private: Option<(u32, String)>,
}

impl Place {
    pub(super) fn new(name: &str, url: &str, private: Option<Running>) -> Self {
        let shown = if private.is_some() { url.to_owned() } else { without_password(url) };
        Self { name: name.to_owned(), url: shown, private: private.map(|it| (it.pid, it.log.display().to_string())) }
    }
}

/// A url for people: its password is cut, and its parameters, which may hold another.
fn without_password(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return "(a URL that cannot be read)".to_owned() };
    if parsed.password().is_some() && parsed.set_password(Some("***")).is_err() {
        return "(a URL with a password)".to_owned();
    }
    parsed.set_query(None);
    parsed.to_string()
}

pub(super) struct Banner<'a> {
    pub application: Application<'a>,
    pub api: SocketAddr,
    pub console: SocketAddr,
    /// Of `posthaste dev` itself.
    pub pid: u32,
    pub keep: Option<&'a Path>,
    /// One for each `postgres` entry.
    pub postgres: Vec<Place>,
    pub rabbit: Place,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Posthaste is running, pid {}. Ctrl-C stops it{}.\n", self.pid, self.ending())?;
        writeln!(f, "  API         http://{}", self.api)?;
        writeln!(f, "  Console     http://{}  (no pages yet: /api/v1, /readyz, /metrics)", self.console)?;
        for place in &self.postgres {
            writeln!(f, "  PostgreSQL  {}  ({}, {})", place.url, place.name, owner(place))?;
        }
        writeln!(f, "  RabbitMQ    {}  ({})", self.rabbit.url, owner(&self.rabbit))?;
        for (_, log) in
            [self.postgres.first(), Some(&self.rabbit)].into_iter().flatten().filter_map(|it| it.private.as_ref())
        {
            writeln!(f, "  Log         {log}")?;
        }
        match &self.application.first_api {
            Some(first) => self.first_steps(f, first),
            None => Ok(()),
        }
    }
}

fn is_given(place: &Place) -> bool {
    place.private.is_none()
}

/// Quoted when a shell would take it for something else.
fn shell_word(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn owner(place: &Place) -> String {
    place.private.as_ref().map_or("yours".to_owned(), |(pid, _)| format!("pid {pid}"))
}

impl Banner<'_> {
    /// What a stop does beside stopping.
    fn ending(&self) -> String {
        let given = [self.postgres.iter().all(is_given), is_given(&self.rabbit)];
        match (self.keep, given) {
            (_, [true, true]) => String::new(),
            (Some(folder), _) => format!("; the data stay in {}", folder.display()),
            (None, [false, false]) => " and removes everything".to_owned(),
            (None, _) => " and removes the private server".to_owned(),
        }
    }

    fn first_steps(&self, f: &mut fmt::Formatter<'_>, first: &FirstApi) -> fmt::Result {
        let program = self.application.program;
        let console = match self.application.finds_console {
            true => String::new(),
            false => format!(" --console http://{}", self.console),
        };
        writeln!(f, "\nIn another terminal, send a first message:\n")?;
        let (content_type, data) = match &first.message {
            // Unlike -d, it sends nothing when there is no such file.
            Some(file) => ("application/json", format!("-T {}", shell_word(&file.display().to_string()))),
            None => ("text/plain", "-d 'My first message'".to_owned()),
        };
        let FirstApi { method, id_header, .. } = first;
        writeln!(f, "  curl -i -X {method} -H '{id_header}: 1000' -H 'Content-Type: {content_type}' \\")?;
        writeln!(f, "    {data} http://{}{}", self.api, first.path)?;
        writeln!(f, "\nThen:\n")?;
        if let Some(status) = first.repeat {
            writeln!(f, "  send the same again: {status}, it is known already")?;
        }
        writeln!(f, "  {program} store list{console}")?;
        for postgres in self.postgres.iter().filter(|place| place.private.is_some()) {
            writeln!(f, "  psql {}", postgres.url)?;
        }
        if self.rabbit.private.is_some() && first.needs_broker {
            writeln!(f, "  {program} dev stop rabbitmq, and send 1001: 503, nothing was done")?;
            writeln!(f, "  {program} dev start rabbitmq, and send 1001 again: 202")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn first() -> FirstApi {
        FirstApi {
            method: "POST".to_owned(),
            path: "/api/write".to_owned(),
            id_header: "Message-Id".to_owned(),
            message: None,
            repeat: Some(304),
            needs_broker: true,
        }
    }

    fn banner(postgres: Vec<Place>, rabbit: Place, first: FirstApi) -> Banner<'static> {
        Banner {
            application: Application { program: "posthaste", finds_console: true, first_api: Some(first) },
            api: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            console: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            pid: 10,
            keep: None,
            postgres,
            rabbit,
        }
    }

    fn place(name: &str, url: &str, pid: u32) -> Place {
        Place { name: name.to_owned(), url: url.to_owned(), private: Some((pid, format!("/tmp/{pid}.log"))) }
    }

    #[test]
    fn private_servers_are_shown_with_everything_one_needs_to_reach_them() {
        let postgres = place("main", "postgres://posthaste:pw@127.0.0.1:21001/main", 11);
        let rabbit = place("", "amqp://posthaste:pw@127.0.0.1:21002/%2f", 12);
        insta::assert_snapshot!(banner(vec![postgres], rabbit, first()), @r"
        Posthaste is running, pid 10. Ctrl-C stops it and removes everything.

          API         http://127.0.0.1:8080
          Console     http://127.0.0.1:8081  (no pages yet: /api/v1, /readyz, /metrics)
          PostgreSQL  postgres://posthaste:pw@127.0.0.1:21001/main  (main, pid 11)
          RabbitMQ    amqp://posthaste:pw@127.0.0.1:21002/%2f  (pid 12)
          Log         /tmp/11.log
          Log         /tmp/12.log

        In another terminal, send a first message:

          curl -i -X POST -H 'Message-Id: 1000' -H 'Content-Type: text/plain' \
            -d 'My first message' http://127.0.0.1:8080/api/write

        Then:

          send the same again: 304, it is known already
          posthaste store list
          psql postgres://posthaste:pw@127.0.0.1:21001/main
          posthaste dev stop rabbitmq, and send 1001: 503, nothing was done
          posthaste dev start rabbitmq, and send 1001 again: 202
        ");
    }

    #[test]
    fn given_servers_are_shown_without_their_password() {
        let postgres = Place::new("main", "postgres://u:hidden@db:5432/app?password=hidden", None);
        let rabbit = Place::new("", "amqp://u:hidden@mq:5672/%2f", None);
        let text = banner(vec![postgres], rabbit, first()).to_string();
        assert!(text.contains("postgres://u:***@db:5432/app  (main, yours)"), "{text}");
        assert!(!text.contains("hidden") && !text.contains("psql") && !text.contains("dev stop"), "{text}");
        assert!(text.starts_with("Posthaste is running, pid 10. Ctrl-C stops it.\n"), "nothing is removed: {text}");
    }

    #[test]
    fn each_database_is_shown_and_the_configuration_s_own_first_message_is_sent() {
        let first = FirstApi {
            method: "PUT".to_owned(),
            path: "/api/order".to_owned(),
            message: Some(PathBuf::from("/my examples/first-message.json")),
            ..first()
        };
        let postgres = vec![place("main", "postgres://u@h/main", 11), place("shop", "postgres://u@h/shop", 11)];
        let text = banner(postgres, place("", "amqp://u@h/", 12), first).to_string();
        for line in [
            "  PostgreSQL  postgres://u@h/shop  (shop, pid 11)",
            "  curl -i -X PUT -H 'Message-Id: 1000' -H 'Content-Type: application/json' \\",
            "    -T '/my examples/first-message.json' http://127.0.0.1:8080/api/order",
            "  psql postgres://u@h/main",
            "  psql postgres://u@h/shop",
        ] {
            assert!(text.lines().any(|one| one == line), "no {line:?} in\n{text}");
        }
    }
    #[test]
    fn nothing_is_said_that_is_not_true_of_the_configuration() {
        let private = || (vec![place("main", "postgres://u@h/main", 11)], place("", "amqp://u@h/", 12));
        let text = |first: FirstApi| {
            let (postgres, rabbit) = private();
            banner(postgres, rabbit, first).to_string()
        };
        let ok = text(FirstApi { repeat: Some(200), id_header: "X-Id".to_owned(), ..first() });
        assert!(ok.contains("send the same again: 200, it is known already") && ok.contains("-H 'X-Id: 1000'"), "{ok}");
        assert!(!text(FirstApi { repeat: None, ..first() }).contains("send the same again"));
        let without = text(FirstApi { needs_broker: false, ..first() });
        assert!(!without.contains("dev stop"), "accepted without RabbitMQ: {without}");

        let (postgres, rabbit) = private();
        let mut elsewhere = banner(postgres, rabbit, first());
        elsewhere.application.finds_console = false;
        elsewhere.keep = Some(Path::new("/data"));
        let elsewhere = elsewhere.to_string();
        assert!(elsewhere.contains("  posthaste store list --console http://127.0.0.1:8081\n"), "{elsewhere}");
        assert!(elsewhere.contains("Ctrl-C stops it; the data stay in /data.\n"), "{elsewhere}");
        let mixed =
            banner(vec![Place::new("main", "postgres://u@h/main", None)], place("", "amqp://u@h/", 12), first());
        assert!(mixed.to_string().contains("Ctrl-C stops it and removes the private server.\n"), "{mixed}");
    }

    #[test]
    fn a_header_is_shown_as_people_write_it() {
        assert_eq!(canonical(&axum::http::HeaderName::from_static("x-message-id")), "X-Message-Id");
    }
}
