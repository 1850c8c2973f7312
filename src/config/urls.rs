//! Urls of servers: what is wrong with them, told without showing them.

use secrecy::SecretString;
use url::Url;

use super::section::{Context, Text};
use crate::store::PostgresSettings;

/// What is wrong with a url, never the url itself: it may carry a password.
pub(super) struct WrongUrl {
    message: &'static str,
    help: &'static str,
}

const TLS: &str = "TLS is not available in this version";

pub(super) fn check_url(key: &str, url: &Text, check: fn(&Url, &str) -> Result<(), WrongUrl>, cx: &mut Context<'_>) {
    if url.is_absent() {
        return;
    }
    let parsed = match Url::parse(&url.value) {
        Ok(parsed) => parsed,
        Err(error) => {
            let help = "a user or password with special characters stands better in `username` and `password`";
            cx.report.error(url.at, format!("`{key}` is no url: {error}"), help);
            return;
        }
    };
    if let Err(wrong) = check(&parsed, &url.value) {
        cx.report.error(url.at, format!("`{key}` {}", wrong.message), wrong.help);
    }
}

pub(super) fn postgres_url(parsed: &Url, url: &str) -> Result<(), WrongUrl> {
    let form = "write postgres://host:5432/database";
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(WrongUrl { message: "must start with postgres://", help: form });
    }
    if asks_for_tls(parsed) {
        return Err(WrongUrl { message: "asks for TLS by `sslmode`", help: TLS });
    }
    let probe = PostgresSettings {
        name: String::new(),
        url: SecretString::from(url.to_owned()),
        username: None,
        role: None,
        password: None,
        pool_max_size: 1,
        branches: 0,
    };
    if probe.client_config().is_err() {
        return Err(WrongUrl { message: "is not understood by the PostgreSQL client", help: form });
    }
    Ok(())
}

/// Also `prefer`: what is preferred would silently not be done.
pub fn asks_for_tls(postgres: &Url) -> bool {
    postgres.query_pairs().any(|(key, value)| key == "sslmode" && value != "disable")
}

pub(super) fn amqp_url(parsed: &Url, _url: &str) -> Result<(), WrongUrl> {
    let form = "write amqp://host:5672/vhost, with %2f for the vhost `/`";
    match parsed.scheme() {
        "amqp" => {}
        "amqps" => return Err(WrongUrl { message: "asks for TLS by amqps://", help: TLS }),
        _ => return Err(WrongUrl { message: "must start with amqp://", help: form }),
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(WrongUrl { message: "names no host", help: form });
    }
    if parsed.path() == "/" {
        return Err(WrongUrl {
            message: "names an empty vhost",
            help: "write %2f behind the `/` for the vhost `/`, or its name",
        });
    }
    if parsed.path().trim_start_matches('/').contains('/') {
        return Err(WrongUrl { message: "has a vhost with a bare `/`", help: form });
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        let help = "remove what follows the vhost: heartbeat and time-outs are Posthaste's own";
        return Err(WrongUrl { message: "has parameters, and none of them would be used", help });
    }
    Ok(())
}

pub(super) fn management_url(parsed: &Url, _url: &str) -> Result<(), WrongUrl> {
    let form = "write http://host:15672; user and password are the entry's own, or stand in it";
    match parsed.scheme() {
        "http" => {}
        "https" => return Err(WrongUrl { message: "asks for TLS by https://", help: TLS }),
        _ => return Err(WrongUrl { message: "must start with http://", help: form }),
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(WrongUrl { message: "has more than host, port and path", help: form });
    }
    Ok(())
}
