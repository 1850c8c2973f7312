//! The two kinds of listeners.

use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use url::Url;

use super::keys;
use super::section::{At, Context, Section, Text, checked};
use super::values::{self, Wrong};
use crate::inbound::Accept;

pub(super) enum Listener {
    Api(ApiListener),
    Amqp(AmqpListener),
}

pub(super) struct ApiListener {
    /// None after its mistake was reported.
    pub uri_pattern: Option<At<String>>,
    pub method: Method,
    pub message_id_headers: Vec<HeaderName>,
    pub correlation_id_header: HeaderName,
    pub require_message_id: bool,
    pub header_params: Vec<HeaderName>,
    pub allowed_origins: Vec<HeaderValue>,
    pub max_body: At<usize>,
    pub duplicate_status: StatusCode,
    pub conflict_status: StatusCode,
    pub accept: Accept,
    pub max_open: u64,
}

pub(super) struct AmqpListener {
    pub connection: Text,
    pub destination: Text,
}

pub(super) fn listener_section(receiver: &mut Section, cx: &mut Context<'_>) -> Option<Listener> {
    let Some(mut section) = receiver.section("listener", &keys::LISTENER, cx) else {
        receiver.missing("listener", cx);
        return None;
    };
    let listener = section.kind(keys::LISTENER_KINDS, cx).and_then(|entry| {
        if entry.key == "api" {
            Section::open(entry.value, &keys::LISTENER_API, cx).map(|kind| Listener::Api(api(kind, cx)))
        } else {
            Section::open(entry.value, &keys::LISTENER_AMQP, cx).map(|kind| Listener::Amqp(amqp(kind, cx)))
        }
    });
    section.finish(cx);
    listener
}

fn amqp(mut section: Section, cx: &mut Context<'_>) -> AmqpListener {
    let connection = section.required("connection", cx);
    let destination = section.required_form("destinationName", values::queue_name, cx);
    section.finish(cx);
    AmqpListener { connection, destination }
}

/// The largest `maxBody`: PostgreSQL holds 1 GiB in a value and needs several copies of it.
const LARGEST_BODY: u64 = 256 << 20;
const DEFAULT_BODY: usize = 1 << 20;

fn api(mut section: Section, cx: &mut Context<'_>) -> ApiListener {
    let pattern = section.required("uriPattern", cx);
    let uri_pattern = Some(&pattern)
        .filter(|pattern| !pattern.is_absent())
        .and_then(|text| checked("uriPattern", text, uri_pattern_form, cx))
        .map(|value| At { value, at: pattern.at });
    let status = |section: &mut Section, key, cx: &mut Context<'_>| {
        section.parsed(key, duplicate_status, cx).map(|status| status.value)
    };
    let duplicate_status = status(&mut section, "duplicateStatus", cx).unwrap_or(StatusCode::NOT_MODIFIED);
    let conflict_status = status(&mut section, "conflictStatus", cx).unwrap_or(duplicate_status);
    let body = section.parsed("maxBody", |text| values::size(text, LARGEST_BODY), cx);
    let open = section.parsed("maxOpen", |text| values::number(text, 1, u64::from(u32::MAX)), cx);
    let listener = ApiListener {
        uri_pattern,
        method: section.parsed("method", method, cx).map_or(Method::POST, |method| method.value),
        message_id_headers: id_headers(&mut section, cx),
        correlation_id_header: section
            .parsed("correlationIdHeader", header_name, cx)
            .map_or(HeaderName::from_static("correlation-id"), |name| name.value),
        require_message_id: section.parsed("requireMessageId", values::flag, cx).is_some_and(|flag| flag.value),
        header_params: header_params(&mut section, cx),
        allowed_origins: allowed_origins(&mut section, cx),
        max_body: body.unwrap_or(At { value: DEFAULT_BODY, at: section.at }),
        duplicate_status,
        conflict_status,
        accept: section.parsed("accept", accept, cx).map(|accept| accept.value).unwrap_or_default(),
        max_open: open.map_or(1_000_000, |open| open.value),
    };
    section.finish(cx);
    listener
}

fn id_headers(section: &mut Section, cx: &mut Context<'_>) -> Vec<HeaderName> {
    let texts = section.texts("messageIdHeaders", cx);
    let mut names = header_names("messageIdHeaders", &texts, header_name, cx);
    if names.is_empty() {
        names.push(HeaderName::from_static("message-id"));
    }
    names
}

fn header_params(section: &mut Section, cx: &mut Context<'_>) -> Vec<HeaderName> {
    let texts = section.texts("headerParams", cx);
    header_names("headerParams", &texts, free_header_name, cx)
}

fn allowed_origins(section: &mut Section, cx: &mut Context<'_>) -> Vec<HeaderValue> {
    let texts = section.texts("allowedOrigins", cx);
    texts.iter().filter_map(|text| checked("allowedOrigins", text, origin, cx)).collect()
}

/// As browsers write it: they are compared as they are.
fn origin(text: &str) -> Result<HeaderValue, Wrong> {
    let written = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let written = written.map(|url| url.origin().ascii_serialization());
    match written {
        Some(written) if written == text => HeaderValue::try_from(written).map_err(|_| Wrong::new("an origin", "")),
        Some(written) => Err(Wrong::new("an origin as browsers write it", format!("write {written}"))),
        None => Err(Wrong::new("an origin", "scheme, host and port of the page, for example https://shop.example")),
    }
}

fn header_names(
    key: &str,
    texts: &[Text],
    form: fn(&str) -> Result<HeaderName, Wrong>,
    cx: &mut Context<'_>,
) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for text in texts {
        let Some(name) = checked(key, text, form, cx) else { continue };
        if names.contains(&name) {
            cx.report.error(text.at, format!("`{}` stands twice in `{key}`", text.shown()), "header names ignore case");
        } else {
            names.push(name);
        }
    }
    names
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, Wrong> {
    text.parse().map_err(|_| Wrong::new("a header's name", "letters, digits and `-`, for example X-Tenant"))
}

/// A header that Posthaste and the broker do not write themselves.
fn free_header_name(text: &str) -> Result<HeaderName, Wrong> {
    const OWN: [&str; 5] = ["x-message-id", "x-attempts", "x-published-at", "x-delivery-count", "content-type"];
    const FAMILIES: [&str; 4] = ["x-posthaste-", "x-death", "x-first-death-", "x-last-death-"];
    let name = header_name(text)?;
    if name == "content-encoding" {
        return Err(Wrong::new("a header of the message itself", "the body travels on unpacked"));
    }
    if OWN.contains(&name.as_str()) || FAMILIES.iter().any(|family| name.as_str().starts_with(family)) {
        return Err(Wrong::new("a header of yours", "Posthaste or the broker writes this one itself"));
    }
    Ok(name)
}

fn method(text: &str) -> Result<Method, Wrong> {
    match text {
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        _ => Err(Wrong::new("POST or PUT", "")),
    }
}

fn accept(text: &str) -> Result<Accept, Wrong> {
    values::word(text, &[("confirmed", Accept::Confirmed), ("journalled", Accept::Journalled)])
}

fn duplicate_status(text: &str) -> Result<StatusCode, Wrong> {
    match text {
        "304" => Ok(StatusCode::NOT_MODIFIED),
        "200" => Ok(StatusCode::OK),
        "202" => Ok(StatusCode::ACCEPTED),
        "409" => Ok(StatusCode::CONFLICT),
        _ => Err(Wrong::new("304, 200, 202 or 409", "")),
    }
}

fn uri_pattern_form(text: &str) -> Result<String, Wrong> {
    let wrong = |help: &str| Err(Wrong::new("a path below /api", help));
    let segments = || text.split('/').skip(1);
    if !text.starts_with('/') {
        return wrong("start it with `/`");
    }
    if text.contains(['{', '}', '*']) {
        return wrong("variables are not available in this version: write the segments out");
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@".contains(c);
    if !text.chars().all(|c| c == '/' || allowed(c)) {
        return wrong("letters, digits and -._~ between the slashes");
    }
    if segments().any(|segment| segment == "." || segment == "..") {
        return wrong("`.` and `..` are no segments");
    }
    if segments().any(str::is_empty) {
        return wrong("no `//`, and no `/` at the end");
    }
    if segments().next() == Some("api") {
        return wrong("`/api` stands before it by itself: leave it out here");
    }
    if segments().next() == Some("messages") {
        return wrong("`/messages` is reserved: there clients ask what became of their message");
    }
    if text == "/openapi.json" {
        return wrong("`/openapi.json` is reserved: there the listeners are described");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_literal_segments_and_never_the_reserved_ones() {
        for pattern in
            ["/write", "/a/b-c.d", "/messagesx", "/x/messages", "/v1:run", "/apis", "/x/api", "/x/openapi.json"]
        {
            assert!(uri_pattern_form(pattern).is_ok(), "{pattern}");
        }
        for pattern in [
            "write",
            "/",
            "/a/",
            "//a",
            "/a/../b",
            "/.",
            "/{id}",
            "/a*",
            "/é",
            "/a b",
            "/api",
            "/api/write",
            "/messages",
            "/messages/x",
            "/openapi.json",
            "/a?b",
        ] {
            assert!(uri_pattern_form(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn an_origin_stands_there_as_browsers_write_it() {
        for text in ["https://shop.example", "http://localhost:3000", "http://[::1]:3000"] {
            assert_eq!(origin(text).unwrap(), text);
        }
        for (text, help) in [
            ("https://shop.example/", "write https://shop.example"),
            ("https://Shop.example:443/path", "write https://shop.example"),
            ("https://u:p@shop.example", "write https://shop.example"),
        ] {
            assert_eq!(origin(text).unwrap_err().help, help, "{text}");
        }
        for text in ["*", "null", "shop.example", "file:///x", "ftp://shop.example", "https://*.shop.example x"] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn headers_that_posthaste_or_the_broker_writes_are_reserved() {
        for name in
            ["X-Message-Id", "x-attempts", "X-Posthaste-Home", "x-death", "X-First-Death-Queue", "Content-Encoding"]
        {
            assert!(free_header_name(name).is_err(), "{name}");
        }
        assert!(free_header_name("X-Tenant").is_ok());
    }
}
