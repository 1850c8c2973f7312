//! HTTP to the running instance, with a bound on every wait.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as HyperClient, Error as HyperError};
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::Failure;
use super::output::{member, one_line};

const CONNECT_BOUND: Duration = Duration::from_secs(5);
/// A resend answers after 30 s at the latest, any request after 60 s.
const ANSWER_BOUND: Duration = Duration::from_secs(70);
/// Between two parts of an answer: a bulk action writes at least one for each message.
const PART_BOUND: Duration = Duration::from_secs(70);

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One part of a path or a value of a query, so that it means itself.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A client of one address.
pub(super) struct Client {
    http: HyperClient<HttpConnector, Full<Bytes>>,
    /// Host and port.
    address: String,
    /// Where that comes from, as a sentence.
    source: String,
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Client {
    pub(super) fn new(address: String, source: String) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_BOUND));
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        Self { http, address, source }
    }

    /// A GET that must succeed.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(Method::GET, path, &[], Bytes::new()).await?.success()
    }

    /// A POST or DELETE with a JSON body that must succeed.
    pub(super) async fn act(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        self.request(method, path, body).await?.success()
    }

    /// A request with a JSON body, whatever the answer.
    pub(super) async fn request(&self, method: Method, path: &str, body: &Value) -> Result<Answer, Failure> {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.send(method, path, &[json], Bytes::from(body.to_string())).await
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Failure::internal(format!("the request cannot be written: {error}")))?;
        let response = tokio::time::timeout(ANSWER_BOUND, self.http.request(request)).await;
        let response = response.map_err(|_elapsed| self.silent())?.map_err(|error| self.unreachable(&error))?;
        self.read(response).await
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, Failure> {
        let (parts, mut body) = response.into_parts();
        let mut all = BytesMut::new();
        loop {
            match tokio::time::timeout(PART_BOUND, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        all.extend_from_slice(data);
                    }
                }
                Ok(Some(Err(error))) => {
                    return Err(Failure::try_again(format!("{} broke off its answer: {error}", self.address)));
                }
                Ok(None) => return Ok(Answer { status: parts.status, headers: parts.headers, body: all.freeze() }),
                Err(_elapsed) => return Err(self.silent()),
            }
        }
    }

    fn unreachable(&self, error: &HyperError) -> Failure {
        let Self { address, source, .. } = self;
        if !error.is_connect() {
            return Failure::try_again(format!("{address} broke off; see what it did before you repeat this"));
        }
        Failure::unreachable(format!("nothing answers at {address}; is `posthaste run` running?\n  {source}"))
    }

    fn silent(&self) -> Failure {
        let text = format!("{} does not answer; see what it did before you repeat this", self.address);
        Failure::try_again(text)
    }
}

impl Answer {
    /// The JSON of a successful answer; a problem becomes a failure.
    pub(super) fn success(self) -> Result<Value, Failure> {
        if !self.status.is_success() {
            return Err(self.problem());
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::internal(format!("the answer is not the JSON that I expect: {error}")))
    }

    /// What a problem says, and what it means for the status of this command.
    pub(super) fn problem(&self) -> Failure {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let detail = member(&problem, "detail").as_str().or(member(&problem, "title").as_str());
        let detail = detail.map_or_else(|| self.status.to_string(), one_line);
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Failure::try_again(detail),
            StatusCode::INTERNAL_SERVER_ERROR => Failure::internal(detail),
            _ => Failure::failed(detail),
        }
    }
}
