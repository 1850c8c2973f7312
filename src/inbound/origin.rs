//! Web pages: which may send messages from a visitor's browser, and read the answers (CORS).

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_ENCODING,
    CONTENT_TYPE, ORIGIN, VARY,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::InboundSettings;
use super::problem::Problem;
use super::respond::none;

pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// How long a browser need not ask again, in seconds.
const MAX_AGE: u64 = 600;
/// What a page may read beside the content type.
const EXPOSED: HeaderValue = HeaderValue::from_static("location, retry-after, x-outcome");

/// Answers the origin that the listener allows, or `None` for what no page of another site has sent. A page can say
/// neither header itself: both are its browser's.
///
/// # Errors
/// 403: a page of another site that is not allowed.
pub(super) fn sender<'a>(
    headers: &HeaderMap,
    host: Option<&Authority>,
    allowed: &'a [HeaderValue],
) -> Result<Option<&'a HeaderValue>, Problem> {
    let origin = headers.get(ORIGIN);
    if let Some(origin) = origin.and_then(|origin| allowed.iter().find(|allowed| *allowed == origin)) {
        return Ok(Some(origin));
    }
    let own = match (headers.get(SEC_FETCH_SITE), origin) {
        // It says more than an origin, whose host a server on the way may not have passed on.
        (Some(site), _) => matches!(site.as_bytes(), b"same-origin" | b"none"),
        (None, Some(origin)) => is_of(origin, host),
        (None, None) => true,
    };
    if own {
        return Ok(None);
    }
    let detail = "pages of other web sites are refused; allowedOrigins of the listener names those that are not";
    Err(none(StatusCode::FORBIDDEN, detail))
}

/// Whether the origin is the very host that was asked.
fn is_of(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let (Ok(origin), Some(host)) = (origin.to_str(), host) else { return false };
    let (rest, port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
        (Some(rest), _) => (rest, 80),
        (None, Some(rest)) => (rest, 443),
        (None, None) => return false,
    };
    let Ok(origin) = rest.parse::<Authority>() else { return false };
    let same_port = origin.port_u16().unwrap_or(port) == host.port_u16().unwrap_or(port);
    same_port && origin.host().eq_ignore_ascii_case(host.host())
}

/// Lets the page read the answer.
pub(super) fn allow(origin: &HeaderValue, response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(VARY, HeaderValue::from_static("origin"));
}

/// The answer to a browser that asks beforehand whether a page may send; `None` where it may not, or nobody asks.
pub(super) fn preflight<'a>(
    method: &Method,
    headers: &HeaderMap,
    mut listeners: impl Iterator<Item = &'a InboundSettings>,
) -> Option<Response> {
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| method == Method::OPTIONS)?;
    let listener = listeners.find(|listener| listener.method.as_str().as_bytes() == wanted.as_bytes())?;
    let origin = headers.get(ORIGIN)?;
    let origin = listener.allowed_origins.iter().find(|allowed| *allowed == origin)?;
    let own = [CONTENT_TYPE, CONTENT_ENCODING, listener.correlation_id_header.clone()];
    let names = own.iter().chain(&listener.message_id_headers).chain(&listener.header_params);
    let names: Vec<&str> = names.map(HeaderName::as_str).collect();
    let mut response = StatusCode::NO_CONTENT.into_response();
    allow(origin, &mut response);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::try_from(names.join(", ")).ok()?);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    static ALLOWED: [HeaderValue; 1] = [HeaderValue::from_static("https://shop.example")];

    /// 0: no page of another site; 1: an allowed one.
    fn check(lines: &[(&'static str, &str)]) -> Result<usize, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(*name, value.parse().unwrap());
        }
        let host = Authority::from_static("localhost:8080");
        let sender = sender(&headers, Some(&host), &ALLOWED);
        sender.map(|origin| origin.into_iter().count()).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn who_is_no_browser_sends_neither_header_and_is_let_in() {
        assert_eq!(check(&[]), Ok(0));
    }

    #[test]
    fn pages_of_other_sites_are_refused_and_its_own_are_not() {
        for site in ["cross-site", "same-site", "anything"] {
            assert_eq!(check(&[("sec-fetch-site", site)]), Err(403), "{site}");
            assert_eq!(check(&[("sec-fetch-site", site), ("origin", "http://localhost:8080")]), Err(403), "{site}");
        }
        for origin in ["http://evil.example", "null", "http://localhost:8081", "http://localhost", "file://", ""] {
            assert_eq!(check(&[("origin", origin)]), Err(403), "{origin}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(check(&[("sec-fetch-site", site), ("origin", "https://behind.a.proxy")]), Ok(0), "{site}");
        }
        for origin in ["http://localhost:8080", "http://LOCALHOST:8080", "https://localhost:8080"] {
            assert_eq!(check(&[("origin", origin)]), Ok(0), "{origin}");
        }
    }

    #[test]
    fn an_allowed_origin_is_let_in_whatever_its_browser_says_of_the_site() {
        assert_eq!(check(&[("origin", "https://shop.example"), ("sec-fetch-site", "cross-site")]), Ok(1));
        for origin in ["http://shop.example", "https://shop.example:444", "https://shop.example.evil.example"] {
            assert_eq!(check(&[("origin", origin), ("sec-fetch-site", "cross-site")]), Err(403), "{origin}");
        }
    }

    #[test]
    fn an_origin_without_a_port_has_the_one_of_its_scheme() {
        let is_of =
            |origin: &'static str, host| is_of(&HeaderValue::from_static(origin), Some(&Authority::from_static(host)));
        assert!(is_of("https://api.example", "api.example") && is_of("https://api.example", "api.example:443"));
        assert!(is_of("http://api.example:80", "api.example"));
        assert!(!is_of("http://api.example", "api.example:8080") && !is_of("https://api.example", "api.example:80"));
    }
}
