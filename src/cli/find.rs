//! Finding the running instance, and who acts on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::client::Client;
use super::{Failure, Global};
use crate::config::{Addresses, addresses, process_environment};

/// A client of the running instance's management API.
pub(super) fn console(global: &Global) -> Result<Client, Failure> {
    let Addresses { console, .. } =
        addresses(&global.resources, &process_environment).map_err(Failure::configuration)?;
    Ok(Client::new(reachable(console), "http.console.listen", &global.resources))
}

/// A client of the running instance's public API.
pub(super) fn api(global: &Global) -> Result<Client, Failure> {
    let Addresses { api, .. } = addresses(&global.resources, &process_environment).map_err(Failure::configuration)?;
    Ok(Client::new(reachable(api), "http.api.listen", &global.resources))
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

/// "All addresses" is no address to connect to.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn all_addresses_are_reached_on_loopback() {
        for (listen, at) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:2", "[::1]:2"),
            ("127.0.0.1:3", "127.0.0.1:3"),
            ("10.0.0.1:4", "10.0.0.1:4"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), at.parse().unwrap());
        }
    }
}
