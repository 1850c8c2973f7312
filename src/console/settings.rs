//! The management address; checked by `config`.

use std::net::SocketAddr;

/// `http.console` in resources.yml.
#[derive(Debug, Clone)]
pub struct ConsoleSettings {
    /// Default 127.0.0.1:8081.
    pub listen: SocketAddr,
    /// Allows an address other than loopback without log-ins. Default false.
    pub unauthenticated: bool,
}
