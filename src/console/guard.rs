//! What keeps web pages away from an API without log-ins: any page could otherwise have a visitor's browser delete
//! stores (cross-site request forgery), or read them through a name that resolves to this machine (DNS rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::inbound::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which requests are let in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    own: SocketAddr,
    /// On an address of which nobody knows the names: any `Host`, but an `Origin` must equal it.
    any_host: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    MalformedHost,
    ForeignHost,
    ForeignOrigin,
    OtherSite,
}

impl Guard {
    pub(super) fn new(own: SocketAddr, unauthenticated: bool) -> Self {
        Self { own, any_host: unauthenticated && !own.ip().is_loopback() }
    }

    fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if let Some(site) = headers.get(SEC_FETCH_SITE)
            && !matches!(site.as_bytes(), b"same-origin" | b"none")
        {
            return Err(Refusal::OtherSite);
        }
        let host = host_of(version, uri, headers)?;
        if let Some(host) = &host
            && !self.any_host
            && !self.is_own(host)
        {
            return Err(Refusal::ForeignHost);
        }
        for origin in headers.get_all(ORIGIN) {
            if !self.is_own_origin(origin, host.as_ref()) {
                return Err(Refusal::ForeignOrigin);
            }
        }
        Ok(())
    }

    fn is_own(&self, host: &Authority) -> bool {
        if host.as_str().contains('@') || host.port_u16().unwrap_or(80) != self.own.port() {
            return false;
        }
        let name = host.host();
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        literal.parse::<IpAddr>().is_ok_and(|ip| ip == self.own.ip() || loopback.contains(&ip))
    }

    fn is_own_origin(&self, origin: &HeaderValue, host: Option<&Authority>) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let https = origin.strip_prefix("https://").filter(|_| self.any_host);
        let Some(authority) = origin.strip_prefix("http://").or(https) else { return false };
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let same = host.is_some_and(|host| host.as_str().eq_ignore_ascii_case(authority.as_str()));
        same || (!self.any_host && self.is_own(&authority))
    }
}

/// The host that the client means. Only HTTP/1.0 may leave it out; a browser never does.
fn host_of(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Refusal> {
    let mut given = headers.get_all(HOST).iter();
    let header = given.next();
    if given.next().is_some() {
        return Err(Refusal::MalformedHost);
    }
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.clone()));
    }
    match header {
        Some(host) => {
            let host = host.to_str().ok().and_then(|host| host.parse().ok());
            host.map(Some).ok_or(Refusal::MalformedHost)
        }
        None if version == Version::HTTP_10 => Ok(None),
        None => Err(Refusal::MalformedHost),
    }
}

impl Refusal {
    fn problem(self, own: SocketAddr) -> Problem {
        let (status, detail) = match self {
            Self::MalformedHost => (StatusCode::BAD_REQUEST, "exactly one valid Host header is needed".to_owned()),
            Self::ForeignHost => {
                (StatusCode::FORBIDDEN, format!("this Host is not mine; use localhost:{0} or {own}", own.port()))
            }
            Self::ForeignOrigin => (StatusCode::FORBIDDEN, "requests from other web pages are refused".to_owned()),
            Self::OtherSite => (StatusCode::FORBIDDEN, "requests from other web sites are refused".to_owned()),
        };
        Problem::new(status, detail)
    }
}

/// Middleware: lets in or answers 403.
pub(super) async fn protect(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(request.version(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.problem(guard.own).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn check(guard: Guard, pairs: &[(HeaderName, &str)]) -> Result<(), Refusal> {
        guard.check(Version::HTTP_11, &Uri::from_static("/api/v1/stores"), &headers(pairs))
    }

    fn loopback() -> Guard {
        Guard::new("127.0.0.1:8081".parse().unwrap(), false)
    }

    #[test]
    fn its_own_names_are_let_in_and_no_others() {
        for host in ["127.0.0.1:8081", "localhost:8081", "LOCALHOST:8081", "[::1]:8081"] {
            assert_eq!(check(loopback(), &[(HOST, host)]), Ok(()), "{host}");
        }
        for host in
            ["evil.example:8081", "localhost", "localhost:80", "127.0.0.1.evil.example:8081", "a@localhost:8081"]
        {
            assert_eq!(check(loopback(), &[(HOST, host)]), Err(Refusal::ForeignHost), "{host}");
        }
        assert_eq!(check(loopback(), &[]), Err(Refusal::MalformedHost));
        let two = [(HOST, "localhost:8081"), (HOST, "localhost:8081")];
        let mut map = HeaderMap::new();
        for (name, value) in two {
            map.append(name, value.parse().unwrap());
        }
        let uri = Uri::from_static("/");
        assert_eq!(loopback().check(Version::HTTP_11, &uri, &map), Err(Refusal::MalformedHost));
        assert_eq!(loopback().check(Version::HTTP_10, &uri, &HeaderMap::new()), Ok(()), "an old health probe");
        let absolute = Uri::from_static("http://evil.example/api/v1/stores");
        let own = headers(&[(HOST, "localhost:8081")]);
        assert_eq!(loopback().check(Version::HTTP_11, &absolute, &own), Err(Refusal::ForeignHost));
    }

    #[test]
    fn a_foreign_origin_is_refused_and_its_own_is_not() {
        let host = (HOST, "localhost:8081");
        for origin in ["http://localhost:8081", "http://127.0.0.1:8081"] {
            assert_eq!(check(loopback(), &[host.clone(), (ORIGIN, origin)]), Ok(()), "{origin}");
        }
        for origin in ["http://evil.example", "null", "http://localhost:8082", "https://localhost:8081", "file://"] {
            assert_eq!(check(loopback(), &[host.clone(), (ORIGIN, origin)]), Err(Refusal::ForeignOrigin), "{origin}");
        }
    }

    #[test]
    fn what_a_browser_marks_as_coming_from_another_site_is_refused() {
        let host = (HOST, "localhost:8081");
        for (site, answer) in [
            ("same-origin", Ok(())),
            ("none", Ok(())),
            ("cross-site", Err(Refusal::OtherSite)),
            ("same-site", Err(Refusal::OtherSite)),
        ] {
            assert_eq!(check(loopback(), &[host.clone(), (SEC_FETCH_SITE, site)]), answer, "{site}");
        }
    }

    #[test]
    fn on_an_open_address_any_host_goes_but_an_origin_must_equal_it() {
        let open = Guard::new("0.0.0.0:8081".parse().unwrap(), true);
        let host = (HOST, "posthaste.internal:9000");
        assert_eq!(check(open, std::slice::from_ref(&host)), Ok(()));
        for origin in ["http://posthaste.internal:9000", "https://posthaste.internal:9000"] {
            assert_eq!(check(open, &[host.clone(), (ORIGIN, origin)]), Ok(()));
        }
        assert_eq!(check(open, &[host, (ORIGIN, "http://localhost:8081")]), Err(Refusal::ForeignOrigin));
    }
}
