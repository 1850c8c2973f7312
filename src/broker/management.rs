//! RabbitMQ's management plugin, asked over HTTP for what AMQP does not tell. Nothing but GET.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;
use serde_json::Value;
use url::Url;

use super::AmqpSettings;
use super::endpoint::{Endpoint, EndpointError, decoded};
use super::management_answers::{NodeFacts, QueueFacts, node_facts, queue_facts};

/// One question with its answer.
const BOUND: Duration = Duration::from_secs(10);
/// A queue with thousands of consumers stays far below.
const LARGEST_ANSWER: usize = 16 << 20;

/// Why the plugin did not tell. Never holds the url.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagementError {
    #[error("nothing answers: {0}")]
    Unreachable(String),
    /// The user or a tag of it: `monitoring` is needed.
    #[error("it refuses the user ({0})")]
    Refused(StatusCode),
    #[error("it answers what is not understood: {0}")]
    Answer(String),
}

/// The plugin of one `amqp` entry's broker. `Debug` shows neither user nor password.
pub struct Management {
    http: Client<HttpConnector, Empty<Bytes>>,
    base: String,
    authorization: HeaderValue,
    vhost: String,
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Management").field("vhost", &self.vhost).finish_non_exhaustive()
    }
}

impl Management {
    /// `None` without `managementUrl`. Opens no connection yet.
    ///
    /// # Errors
    /// A url that cannot be used.
    pub fn new(settings: &AmqpSettings) -> Result<Option<Self>, EndpointError> {
        let Some(url) = &settings.management_url else { return Ok(None) };
        let url = Url::parse(url.expose_secret()).map_err(EndpointError::Invalid)?;
        if url.scheme() != "http" {
            return Err(EndpointError::Scheme(url.scheme().to_owned()));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(EndpointError::Host)?;
        let port = url.port_or_known_default().unwrap_or(80);
        let base = format!("http://{host}:{port}{}/api", url.path().trim_end_matches('/'));
        let endpoint = Endpoint::new(settings)?;
        let (user, password) = login(&endpoint, &url)?;
        let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let mut authorization = HeaderValue::try_from(basic).map_err(|_| EndpointError::Host)?;
        authorization.set_sensitive(true);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(BOUND));
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Some(Self { http, base, authorization, vhost: segment(endpoint.vhost()) }))
    }

    /// Every node of the cluster.
    pub async fn nodes(&self) -> Result<Vec<NodeFacts>, ManagementError> {
        let answer = self.get("/nodes").await?.unwrap_or_default();
        let nodes = answer.as_array().ok_or_else(|| ManagementError::Answer("no list of nodes".to_owned()))?;
        Ok(nodes.iter().map(node_facts).collect())
    }

    /// A queue with its consumers; `None`: there is none of this name.
    pub async fn queue(&self, queue: &str) -> Result<Option<QueueFacts>, ManagementError> {
        let Some(answer) = self.get(&format!("/queues/{}/{}", self.vhost, segment(queue))).await? else {
            return Ok(None);
        };
        let mut facts = queue_facts(&answer).ok_or_else(|| ManagementError::Answer("no queue".to_owned()))?;
        for consumer in facts.consumers.iter_mut().flatten() {
            let connection = self.get(&format!("/connections/{}", segment(&consumer.connection))).await;
            let name = |told: &Value| {
                let name = told.pointer("/client_properties/connection_name").and_then(Value::as_str);
                name.unwrap_or_default().to_owned()
            };
            consumer.client = connection.ok().flatten().as_ref().map(name);
        }
        Ok(Some(facts))
    }

    /// Whether the virtual host has an exchange of this name; the default one has none.
    pub async fn exchange_exists(&self, exchange: &str) -> Result<bool, ManagementError> {
        if exchange.is_empty() {
            return Ok(true);
        }
        Ok(self.get(&format!("/exchanges/{}/{}", self.vhost, segment(exchange))).await?.is_some())
    }

    /// The JSON at a path; `None` for 404.
    async fn get(&self, path: &str) -> Result<Option<Value>, ManagementError> {
        let late = |_elapsed| ManagementError::Unreachable(format!("no answer within {} s", BOUND.as_secs()));
        tokio::time::timeout(BOUND, self.ask(path)).await.map_err(late)?
    }

    async fn ask(&self, path: &str) -> Result<Option<Value>, ManagementError> {
        let request = Request::get(format!("{}{path}", self.base)).header(AUTHORIZATION, self.authorization.clone());
        let request = request.body(Empty::new()).map_err(|error| ManagementError::Answer(error.to_string()))?;
        let response = self.http.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            ManagementError::Unreachable(cause)
        })?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(ManagementError::Refused(status));
            }
            status if !status.is_success() => return Err(ManagementError::Answer(status.to_string())),
            _ => {}
        }
        let broken = |error: &dyn fmt::Display| ManagementError::Answer(error.to_string());
        let body =
            Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(|error| broken(&error))?;
        serde_json::from_slice(&body.to_bytes()).map(Some).map_err(|error| broken(&error))
    }
}

/// The url's own user wins; without one it is the entry's.
fn login(endpoint: &Endpoint, url: &Url) -> Result<(String, String), EndpointError> {
    if url.username().is_empty() {
        let (user, password) = endpoint.login();
        return Ok((user.to_owned(), password.expose_secret().to_owned()));
    }
    Ok((decoded(url.username(), "user name")?, decoded(url.password().unwrap_or_default(), "password")?))
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(amqp: &str, management: &str) -> Management {
        let settings = AmqpSettings {
            name: "rabbit".to_owned(),
            url: amqp.into(),
            username: None,
            password: None,
            management_url: Some(management.into()),
            create_destination: true,
            queues: Vec::new(),
        };
        Management::new(&settings).unwrap().unwrap()
    }

    #[test]
    fn the_urls_own_user_wins_over_the_entrys() {
        let told = |management: &Management| {
            let text = management.authorization.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
            String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
        };
        assert_eq!(told(&at("amqp://u:p%40ss@h", "http://h:15672")), "u:p@ss");
        assert_eq!(told(&at("amqp://u:p@h", "http://m%3a:s%2f@h:15672")), "m::s/");
    }

    #[test]
    fn paths_keep_a_prefix_and_the_virtual_host() {
        let management = at("amqp://h/a%2Fb", "http://h:15672/rabbit/");
        assert_eq!((management.base.as_str(), management.vhost.as_str()), ("http://h:15672/rabbit/api", "a%2Fb"));
        assert_eq!(at("amqp://h", "http://[::1]").base, "http://[::1]:80/api");
    }

    #[test]
    fn nothing_of_it_shows_the_password() {
        let management = at("amqp://u:hunter2@h", "http://m:hunter2@h:15672");
        let shown = format!("{management:?} {:?}", management.authorization);
        assert!(!shown.contains("hunter2") && !shown.contains(&STANDARD.encode("m:hunter2")), "{shown}");
    }
}
