//! What `posthaste dev` tells the user when everything is up.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use crate::dev::Running;

/// What the banner needs to know of the application.
#[derive(Debug, Clone, Copy)]
pub struct Application<'a> {
    /// How the user calls this program, such as `target/release/posthaste`.
    pub program: &'a str,
    /// The first API listener; `None` when there is none.
    pub first_api: Option<FirstApi<'a>>,
}

/// Where a first message goes, and what it may be.
#[derive(Debug, Clone, Copy)]
pub struct FirstApi<'a> {
    /// Such as `POST`.
    pub method: &'a str,
    /// Such as `/api/write`.
    pub path: &'a str,
    /// A file of the configuration with a JSON message; `None` when any text will do.
    pub message: Option<&'a Path>,
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
    pub keep: Option<&'a Path>,
    /// One for each `postgres` entry.
    pub postgres: Vec<Place>,
    pub rabbit: Place,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.keep {
            Some(folder) => {
                writeln!(f, "Posthaste is running. Ctrl-C stops it; the data stay in {}.", folder.display())
            }
            None => writeln!(f, "Posthaste is running. Ctrl-C stops it and removes everything."),
        }?;
        writeln!(f)?;
        writeln!(f, "  API         http://{}", self.api)?;
        writeln!(f, "  Console     http://{}", self.console)?;
        for place in &self.postgres {
            writeln!(f, "  PostgreSQL  {}  ({}, {})", place.url, place.name, owner(place))?;
        }
        writeln!(f, "  RabbitMQ    {}  ({})", self.rabbit.url, owner(&self.rabbit))?;
        for (_, log) in
            [self.postgres.first(), Some(&self.rabbit)].into_iter().flatten().filter_map(|it| it.private.as_ref())
        {
            writeln!(f, "  Log         {log}")?;
        }
        match self.application.first_api {
            Some(first) => self.first_steps(f, first),
            None => Ok(()),
        }
    }
}

fn owner(place: &Place) -> String {
    place.private.as_ref().map_or("yours".to_owned(), |(pid, _)| format!("pid {pid}"))
}

impl Banner<'_> {
    fn first_steps(&self, f: &mut fmt::Formatter<'_>, first: FirstApi<'_>) -> fmt::Result {
        let program = self.application.program;
        // Other commands find the instance by the console's address in resources.yml.
        let console = match self.console.port() {
            8081 => String::new(),
            _ => format!("CONSOLE_LISTEN={} ", self.console),
        };
        writeln!(f, "\nIn another terminal, send a first message:\n")?;
        let (content_type, data) = match first.message {
            Some(file) => ("application/json", format!("@{}", file.display())),
            None => ("text/plain", "'My first message'".to_owned()),
        };
        writeln!(f, "  curl -i -X {} -H 'Message-Id: 1000' -H 'Content-Type: {content_type}' \\", first.method)?;
        writeln!(f, "    -d {data} http://{}{}", self.api, first.path)?;
        writeln!(f, "\nThen:\n")?;
        writeln!(f, "  send the same again: 304, it is known already")?;
        writeln!(f, "  {console}{program} store list")?;
        for postgres in self.postgres.iter().filter(|place| place.private.is_some()) {
            writeln!(f, "  psql {}", postgres.url)?;
        }
        if self.rabbit.private.is_some() {
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

    fn banner(postgres: Place, rabbit: Place, console: u16) -> String {
        let first = FirstApi { method: "POST", path: "/api/write", message: None };
        Banner {
            application: Application { program: "posthaste", first_api: Some(first) },
            api: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            console: SocketAddr::from((Ipv4Addr::LOCALHOST, console)),
            keep: None,
            postgres: vec![postgres],
            rabbit,
        }
        .to_string()
    }

    fn place(name: &str, url: &str, pid: u32) -> Place {
        Place { name: name.to_owned(), url: url.to_owned(), private: Some((pid, format!("/tmp/{pid}.log"))) }
    }

    #[test]
    fn private_servers_are_shown_with_everything_one_needs_to_reach_them() {
        let postgres = place("main", "postgres://posthaste:pw@127.0.0.1:21001/main", 11);
        let rabbit = place("", "amqp://posthaste:pw@127.0.0.1:21002/%2f", 12);
        insta::assert_snapshot!(banner(postgres, rabbit, 8081), @r"
        Posthaste is running. Ctrl-C stops it and removes everything.

          API         http://127.0.0.1:8080
          Console     http://127.0.0.1:8081
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
        let text = banner(postgres, rabbit, 9001);
        assert!(text.contains("postgres://u:***@db:5432/app  (main, yours)"), "{text}");
        assert!(!text.contains("hidden") && !text.contains("psql") && !text.contains("dev stop"), "{text}");
        assert!(text.contains("CONSOLE_LISTEN=127.0.0.1:9001 posthaste store list"), "{text}");
    }

    #[test]
    fn each_database_is_shown_and_the_configuration_s_own_first_message_is_sent() {
        let file = Path::new("examples/shop/first-message.json");
        let first = FirstApi { method: "POST", path: "/api/order", message: Some(file) };
        let text = Banner {
            application: Application { program: "posthaste", first_api: Some(first) },
            api: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            console: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            keep: None,
            postgres: vec![place("main", "postgres://u@h/main", 11), place("shop", "postgres://u@h/shop", 11)],
            rabbit: place("", "amqp://u@h/", 12),
        }
        .to_string();
        for line in [
            "  PostgreSQL  postgres://u@h/shop  (shop, pid 11)",
            "  curl -i -X POST -H 'Message-Id: 1000' -H 'Content-Type: application/json' \\",
            "    -d @examples/shop/first-message.json http://127.0.0.1:8080/api/order",
            "  psql postgres://u@h/main",
            "  psql postgres://u@h/shop",
        ] {
            assert!(text.lines().any(|one| one == line), "no {line:?} in\n{text}");
        }
    }
}
