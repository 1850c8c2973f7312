//! The management address; checked by `config`.

use std::net::SocketAddr;

use axum::http::uri::Authority;

/// `http.console` in resources.yml.
#[derive(Debug, Clone)]
pub struct ConsoleSettings {
    /// Default 127.0.0.1:8081.
    pub listen: SocketAddr,
    /// Names under which it is reached beside its addresses and localhost; one without a port goes with any.
    pub hosts: Vec<Authority>,
    /// Allows an address other than loopback without log-ins. Default false.
    pub unauthenticated: bool,
}
