//! Finding the running instance, and who acts on it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

use super::client::Client;
use super::{Failure, Global};
use crate::config::{addresses, process_environment};
use crate::dev::{RunningDev, running_devs};

/// Where a console is: host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConsoleUrl {
    host: Host,
    port: u16,
}

/// Reads `--console`.
pub(super) fn console_url(text: &str) -> Result<ConsoleUrl, String> {
    let example = "write http://HOST:PORT, such as http://127.0.0.1:8081";
    let url = Url::parse(text).map_err(|error| format!("{error}; {example}"))?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    match (url.scheme(), url.host(), url.port_or_known_default()) {
        ("http", Some(host), Some(port)) if bare && url.username().is_empty() && url.password().is_none() => {
            Ok(ConsoleUrl { host: host.to_owned(), port })
        }
        _ => Err(example.to_owned()),
    }
}

impl From<SocketAddr> for ConsoleUrl {
    /// "All addresses" is no address to connect to.
    fn from(listen: SocketAddr) -> Self {
        let host = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Host::Ipv4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => Host::Ipv6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(ip) => Host::Ipv4(ip),
            IpAddr::V6(ip) => Host::Ipv6(ip),
        };
        Self { host, port: listen.port() }
    }
}

impl fmt::Display for ConsoleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl ConsoleUrl {
    fn is(&self, address: SocketAddr) -> bool {
        let same_host = match &self.host {
            Host::Domain(name) => name == "localhost" && address.ip().is_loopback(),
            Host::Ipv4(ip) => address.ip() == *ip,
            Host::Ipv6(ip) => address.ip() == *ip,
        };
        same_host && address.port() == self.port
    }
}

/// A client of the running instance's management API.
pub(super) fn console(global: &Global) -> Result<Client, Failure> {
    if let Some(given) = &global.console {
        return Ok(Client::new(given.to_string(), "The address was given with --console.".to_owned()));
    }
    let found = addresses(&global.resources, &process_environment).map_err(Failure::configuration)?;
    Ok(client(found.console, "http.console.listen", global))
}

/// A client of the running instance's public API.
pub(super) async fn api(global: &Global) -> Result<Client, Failure> {
    let found = addresses(&global.resources, &process_environment).map_err(Failure::configuration)?;
    let console = global.console.clone().unwrap_or_else(|| found.console.into());
    match dev_at(&console).await? {
        Some(dev) => {
            let source = format!("The address is that of `posthaste dev`, pid {}.", dev.pid);
            Ok(Client::new(dev.api.to_string(), source))
        }
        None if global.console.is_some() => Err(Failure::usage(format!(
            "no `posthaste dev` of yours has its console at {console}, so this does not tell where its API is: leave \
             --console out, and http.api.listen of resources.yml is taken"
        ))),
        None => Ok(client(found.api, "http.api.listen", global)),
    }
}

fn client(listen: SocketAddr, key: &str, global: &Global) -> Client {
    let source = format!("The address is {key} in {}.", global.resources.display());
    Client::new(ConsoleUrl::from(listen).to_string(), source)
}

/// The `posthaste dev` of this user whose console is there.
pub(super) async fn dev_at(console: &ConsoleUrl) -> Result<Option<RunningDev>, Failure> {
    let running = running_devs().await.map_err(|error| Failure::try_again(error.to_string()))?;
    Ok(running.into_iter().find(|dev| console.is(dev.console)))
}

/// Who acts: `--as`, else the login name.
pub(super) fn who(global: &Global) -> String {
    global.who.clone().unwrap_or_else(|| {
        let uid = nix::unistd::Uid::current();
        match nix::unistd::User::from_uid(uid) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => format!("uid {uid}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_reached_on_loopback() {
        for (listen, at) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("127.0.0.1:3", "127.0.0.1:3"),
            ("10.0.0.1:4", "10.0.0.1:4"),
        ] {
            assert_eq!(ConsoleUrl::from(listen.parse::<SocketAddr>().unwrap()).to_string(), at);
        }
    }

    #[test]
    fn a_console_is_given_by_host_and_port_and_nothing_else() {
        for (text, at) in [
            ("http://127.0.0.1:8081", "127.0.0.1:8081"),
            ("http://localhost:8081/", "localhost:8081"),
            ("http://[::1]:9", "[::1]:9"),
            ("http://posthaste.example", "posthaste.example:80"),
        ] {
            assert_eq!(console_url(text).unwrap().to_string(), at);
        }
        for wrong in
            ["", "127.0.0.1:8081", "https://h:1", "http://h:1/api", "http://h:1?x", "http://u:p@h:1", "ftp://h:1"]
        {
            assert!(console_url(wrong).unwrap_err().contains("http://127.0.0.1:8081"), "{wrong}");
        }
    }

    #[test]
    fn localhost_means_a_console_on_loopback() {
        let loopback = "127.0.0.1:8081".parse().unwrap();
        for (text, same) in [
            ("http://localhost:8081", true),
            ("http://127.0.0.1:8081", true),
            ("http://127.0.0.1:8082", false),
            ("http://10.0.0.1:8081", false),
            ("http://host.example:8081", false),
        ] {
            assert_eq!(console_url(text).unwrap().is(loopback), same, "{text}");
        }
    }
}
