//! Where the broker is and who we are there, read from settings; and what its version is.

use std::fmt;
use std::time::Duration;

use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FrameSize, Heartbeat};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use super::AmqpSettings;
use super::frames::Rest;
use super::nested::too_deep;

/// Seconds between heartbeats; a silent peer is noticed after twice as many.
const HEARTBEAT: Heartbeat = 10;
/// TCP and AMQP handshakes together, and any single call afterwards.
pub(super) const CALL_BOUND: Duration = Duration::from_secs(5);

/// Why an `amqp` entry's url cannot be used. Never carries the url itself: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("the url is not valid: {0}")]
    Invalid(url::ParseError),
    #[error("the url begins with {0}://; amqp:// is what can be used")]
    Scheme(String),
    #[error("the url names no host")]
    Host,
    #[error("the url has parameters, and none of them would be used: remove what follows the virtual host")]
    Parameters,
    #[error("the {0} in the url is not UTF-8 after percent-decoding")]
    NotUtf8(&'static str),
}

/// A broker's address with the credentials. `Debug` and `Display` show neither user nor password.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) name: String,
    host: String,
    port: u16,
    vhost: String,
    username: String,
    password: SecretString,
}

impl Endpoint {
    pub(super) fn new(settings: &AmqpSettings) -> Result<Self, EndpointError> {
        let url = Url::parse(settings.url.expose_secret()).map_err(EndpointError::Invalid)?;
        if url.scheme() != "amqp" {
            return Err(EndpointError::Scheme(url.scheme().to_owned()));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(EndpointError::Host)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::Parameters);
        }
        // `amqp://host` is the default vhost "/", `amqp://host/` the one with the empty name: RabbitMQ's URI rules.
        let vhost = url.path().strip_prefix('/').map_or(Ok("/".to_owned()), |path| decoded(path, "virtual host"))?;
        let username = match &settings.username {
            Some(username) => username.clone(),
            None if url.username().is_empty() => "guest".to_owned(),
            None => decoded(url.username(), "user name")?,
        };
        let password = match (&settings.password, url.password()) {
            (Some(password), _) => password.clone(),
            (None, Some(password)) => decoded(password, "password")?.into(),
            (None, None) => "guest".into(),
        };
        Ok(Self {
            name: settings.name.clone(),
            host: decoded(host, "host")?.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(5672),
            vhost,
            username,
            password,
        })
    }

    /// The virtual host's name.
    pub(super) fn vhost(&self) -> &str {
        &self.vhost
    }

    pub(super) fn login(&self) -> (&str, &SecretString) {
        (&self.username, &self.password)
    }

    /// The library's form; its `Debug` and `Display` show the password, so it stays inside this module.
    pub(super) fn uri(&self, frame_max: FrameSize) -> AMQPUri {
        AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.username.clone(),
                    password: self.password.expose_secret().to_owned(),
                },
                host: self.host.clone(),
                port: self.port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                frame_max: Some(frame_max),
                heartbeat: Some(HEARTBEAT),
                ..AMQPQueryString::default()
            },
        }
    }

    /// Asks the broker for its version: the greeting tells it before any log-in, but the library does not pass it on.
    /// Used only before a queue is declared.
    pub(super) async fn server_version(&self) -> Option<ServerVersion> {
        tokio::time::timeout(CALL_BOUND, self.greeting()).await.ok()?.ok().and_then(|payload| version_in(&payload))
    }

    /// A socket to it, on which nothing is said yet.
    pub(super) async fn dial(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn greeting(&self) -> std::io::Result<Vec<u8>> {
        let mut stream = self.dial().await?;
        stream.write_all(b"AMQP\0\0\x09\x01").await?;
        let mut header = [0; 7];
        stream.read_exact(&mut header).await?;
        let [_, _, _, a, b, c, d] = header;
        let size = u32::from_be_bytes([a, b, c, d]).min(64 * 1024);
        let mut payload = Vec::new();
        stream.take(u64::from(size)).read_to_end(&mut payload).await?;
        Ok(payload)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} (virtual host {})", self.host, self.port, self.vhost)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}, {self})", self.name)
    }
}

pub(super) fn decoded(text: &str, what: &'static str) -> Result<String, EndpointError> {
    Ok(percent_decode_str(text).decode_utf8().map_err(|_| EndpointError::NotUtf8(what))?.into_owned())
}

/// A broker's version: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion(pub u16, pub u16, pub u16);

impl ServerVersion {
    /// Reads `3.10.8`, `4.0.0-rc.1`, `3.13`; what follows the numbers is ignored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?.split('.');
        let mut number = |missing| parts.next().map_or(missing, |part| part.parse().ok());
        Some(Self(number(None)?, number(None)?, number(Some(0))?))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The version in the payload of a `connection.start` frame: class, method, protocol, then the server's properties.
fn version_in(payload: &[u8]) -> Option<ServerVersion> {
    let table = payload.strip_prefix(&[0, 10, 0, 10])?.get(2..)?;
    if too_deep(Rest(table).long()?) {
        return None;
    }
    let (_, table) = parse_field_table(table).ok()?;
    match table.inner().get("version")? {
        AMQPValue::LongString(text) => ServerVersion::parse(std::str::from_utf8(text.as_bytes()).ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> AmqpSettings {
        AmqpSettings {
            name: "rabbit".to_owned(),
            url: url.into(),
            username: None,
            password: None,
            management_url: None,
            create_destination: true,
            queues: Vec::new(),
        }
    }

    fn read(url: &str) -> AMQPUri {
        Endpoint::new(&settings(url)).unwrap().uri(4096)
    }

    #[test]
    fn the_virtual_host_follows_rabbitmqs_uri_rules() {
        assert_eq!(read("amqp://localhost").vhost, "/");
        assert_eq!(read("amqp://localhost/").vhost, "");
        assert_eq!(read("amqp://localhost/%2f").vhost, "/");
        assert_eq!(read("amqp://localhost/a%2Fb").vhost, "a/b");
    }

    #[test]
    fn an_address_in_any_form_is_reached_under_its_own_name() {
        assert_eq!(read("amqp://127.0.0.1:5673/%2f").authority.host, "127.0.0.1");
        assert_eq!(read("amqp://[::1]:5673/%2f").authority.host, "::1");
        assert_eq!(read("amqp://rabbit.example/%2f").authority.port, 5672);
    }

    #[test]
    fn username_and_password_beside_the_url_win_and_are_taken_as_they_are() {
        let url = read("amqp://us%40er:p%3Aw@localhost/%2f").authority.userinfo;
        assert_eq!((url.username.as_str(), url.password.as_str()), ("us@er", "p:w"));
        let mut settings = settings("amqp://user:pw@localhost/%2f");
        settings.username = Some("a%40b".to_owned());
        settings.password = Some("%41".into());
        let beside = Endpoint::new(&settings).unwrap().uri(4096).authority.userinfo;
        assert_eq!((beside.username.as_str(), beside.password.as_str()), ("a%40b", "%41"));
    }

    #[test]
    fn nothing_printable_shows_the_credentials() {
        let endpoint = Endpoint::new(&settings("amqp://secretuser:secretpw@localhost/%2f")).unwrap();
        assert_eq!(format!("{endpoint} {endpoint:?}").matches("secret").count(), 0);
        let error = Endpoint::new(&settings("amqp://secretuser:secretpw@localhost:port/")).unwrap_err();
        assert_eq!(format!("{error} {error:?}").matches("secret").count(), 0);
    }

    #[test]
    fn a_tls_url_is_refused_by_name() {
        assert_eq!(Endpoint::new(&settings("amqps://localhost")).unwrap_err(), EndpointError::Scheme("amqps".into()));
    }

    #[test]
    fn parameters_that_would_not_be_used_are_refused() {
        for url in ["amqp://localhost/%2f?heartbeat=5", "amqp://localhost/?", "amqp://localhost/%2f#x"] {
            assert_eq!(Endpoint::new(&settings(url)).unwrap_err(), EndpointError::Parameters, "{url}");
        }
    }

    #[test]
    fn versions_are_ordered_as_numbers_whatever_follows_them() {
        assert_eq!(ServerVersion::parse("3.10.8"), Some(ServerVersion(3, 10, 8)));
        assert_eq!(ServerVersion::parse("4.0.0-rc.1"), Some(ServerVersion(4, 0, 0)));
        assert_eq!(ServerVersion::parse("4.1+git"), Some(ServerVersion(4, 1, 0)));
        assert_eq!(ServerVersion::parse("unknown"), None);
        assert!(ServerVersion(3, 13, 7) < ServerVersion(4, 0, 0));
    }

    #[test]
    fn a_greeting_that_is_no_greeting_has_no_version() {
        assert_eq!(version_in(b""), None);
        assert_eq!(version_in(&[0, 10, 0, 10, 0, 9, 255, 255, 255, 255]), None);
        assert_eq!(version_in(&[0, 10, 0, 11, 0, 9, 0, 0, 0, 0]), None);
    }
}
