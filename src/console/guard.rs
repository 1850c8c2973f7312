//! What keeps web pages away from an API without log-ins: any page could otherwise have a visitor's browser delete
//! stores (cross-site request forgery), or read them through a name that resolves to this machine (DNS rebinding).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::ORIGIN;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::inbound::origin::SEC_FETCH_SITE;
use crate::inbound::problem::Problem;
use crate::inbound::well_formed::well_formed;

/// What probes ask under whatever name they know. It changes nothing and shows no message.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Which requests are let in.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    own: SocketAddr,
    /// Not on loopback: it has addresses that it does not know, and no page can have one of them for a name.
    open: bool,
    hosts: Arc<[Authority]>,
}

/// Why a request is refused.
#[derive(Debug, Clone)]
enum Refusal {
    Malformed(Problem),
    ForeignHost,
    ForeignOrigin,
    OtherSite,
}

impl Guard {
    /// `hosts`: names for it beside its addresses and localhost.
    pub(super) fn new(own: SocketAddr, hosts: Vec<Authority>) -> Self {
        Self { own, open: !own.ip().is_loopback(), hosts: hosts.into() }
    }

    fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if let Some(site) = headers.get(SEC_FETCH_SITE)
            && !matches!(site.as_bytes(), b"same-origin" | b"none")
        {
            return Err(Refusal::OtherSite);
        }
        let host = well_formed(version, uri, headers).map_err(Refusal::Malformed)?;
        if let Some(host) = &host
            && !PROBES.contains(&uri.path())
            && !self.is_mine(host)
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

    fn is_mine(&self, host: &Authority) -> bool {
        if host.as_str().contains('@') {
            return false;
        }
        let address = ip_of(host);
        let local = host.host().eq_ignore_ascii_case("localhost");
        let known = if self.open {
            local || address.is_some()
        } else {
            let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            let own = address.is_some_and(|ip| ip == self.own.ip() || loopback.contains(&ip));
            host.port_u16().unwrap_or(80) == self.own.port() && (local || own)
        };
        known || self.is_listed(host)
    }

    fn is_listed(&self, host: &Authority) -> bool {
        let same_port = |one: &Authority| one.port_u16().is_none_or(|port| host.port_u16() == Some(port));
        self.hosts.iter().any(|one| one.host().eq_ignore_ascii_case(host.host()) && same_port(one))
    }

    fn is_own_origin(&self, origin: &HeaderValue, host: Option<&Authority>) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        // Something before it may have ended TLS.
        let behind = self.open || host.is_some_and(|host| self.is_listed(host));
        let https = origin.strip_prefix("https://").filter(|_| behind);
        let Some(authority) = origin.strip_prefix("http://").or(https) else { return false };
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let same = host.is_some_and(|host| host.as_str().eq_ignore_ascii_case(authority.as_str()));
        same || (!self.open && self.is_mine(&authority))
    }
}

fn ip_of(host: &Authority) -> Option<IpAddr> {
    let name = host.host();
    name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name).parse().ok()
}

impl Refusal {
    fn problem(self, own: SocketAddr) -> Problem {
        let (status, detail) = match self {
            Self::Malformed(problem) => return problem,
            Self::ForeignHost => {
                let detail = format!(
                    "this Host is not mine; use localhost:{0} or {own}, or list its name in http.console.hosts",
                    own.port()
                );
                (StatusCode::FORBIDDEN, detail)
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
    use axum::http::HeaderName;
    use axum::http::header::HOST;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    /// Ok, or in one word why not.
    fn check(guard: &Guard, pairs: &[(HeaderName, &str)]) -> Result<(), &'static str> {
        asked(guard, Version::HTTP_11, "/api/v1/stores", &headers(pairs))
    }

    fn asked(guard: &Guard, version: Version, uri: &'static str, headers: &HeaderMap) -> Result<(), &'static str> {
        guard.check(version, &Uri::from_static(uri), headers).map_err(|refusal| match refusal {
            Refusal::Malformed(_) => "malformed",
            Refusal::ForeignHost => "host",
            Refusal::ForeignOrigin => "origin",
            Refusal::OtherSite => "site",
        })
    }

    fn loopback() -> Guard {
        Guard::new("127.0.0.1:8081".parse().unwrap(), Vec::new())
    }

    fn open(hosts: &[&str]) -> Guard {
        let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        Guard::new("0.0.0.0:8081".parse().unwrap(), hosts)
    }

    #[test]
    fn its_own_names_are_let_in_and_no_others() {
        for host in ["127.0.0.1:8081", "localhost:8081", "LOCALHOST:8081", "[::1]:8081"] {
            assert_eq!(check(&loopback(), &[(HOST, host)]), Ok(()), "{host}");
        }
        for host in ["evil.example:8081", "localhost", "localhost:80", "127.0.0.1.evil.example:8081", "10.0.0.1:8081"] {
            assert_eq!(check(&loopback(), &[(HOST, host)]), Err("host"), "{host}");
        }
        assert_eq!(check(&loopback(), &[]), Err("malformed"));
        assert_eq!(check(&loopback(), &[(HOST, "a@localhost:8081")]), Err("malformed"));
        let mut map = HeaderMap::new();
        for (name, value) in [(HOST, "localhost:8081"), (HOST, "localhost:8081")] {
            map.append(name, value.parse().unwrap());
        }
        assert_eq!(asked(&loopback(), Version::HTTP_11, "/", &map), Err("malformed"));
        assert_eq!(asked(&loopback(), Version::HTTP_10, "/", &HeaderMap::new()), Ok(()), "an old health probe");
        let own = headers(&[(HOST, "localhost:8081")]);
        assert_eq!(asked(&loopback(), Version::HTTP_11, "http://evil.example/api/v1/stores", &own), Err("host"));
        assert_eq!(asked(&loopback(), Version::HTTP_11, "http://a@localhost:8081/api", &own), Err("host"));
    }

    #[test]
    fn a_foreign_origin_is_refused_and_its_own_is_not() {
        let host = (HOST, "localhost:8081");
        for origin in ["http://localhost:8081", "http://127.0.0.1:8081"] {
            assert_eq!(check(&loopback(), &[host.clone(), (ORIGIN, origin)]), Ok(()), "{origin}");
        }
        for origin in ["http://evil.example", "null", "http://localhost:8082", "https://localhost:8081", "file://"] {
            assert_eq!(check(&loopback(), &[host.clone(), (ORIGIN, origin)]), Err("origin"), "{origin}");
        }
    }

    #[test]
    fn what_a_browser_marks_as_coming_from_another_site_is_refused() {
        let host = (HOST, "localhost:8081");
        for (site, answer) in
            [("same-origin", Ok(())), ("none", Ok(())), ("cross-site", Err("site")), ("same-site", Err("site"))]
        {
            assert_eq!(check(&loopback(), &[host.clone(), (SEC_FETCH_SITE, site)]), answer, "{site}");
        }
    }

    #[test]
    fn on_an_open_address_any_address_goes_and_no_name_that_is_not_listed() {
        for host in ["10.0.0.5:8081", "[fd00::1]:8081", "192.0.2.1", "localhost:18081"] {
            assert_eq!(check(&open(&[]), &[(HOST, host)]), Ok(()), "{host}");
        }
        // A page under this name has the visitor's browser ask us, once the name leads to us.
        for host in ["evil.example", "evil.example:8081", "10.0.0.5.evil.example:8081"] {
            assert_eq!(check(&open(&["posthaste.internal"]), &[(HOST, host)]), Err("host"), "{host}");
        }
        let origin = (ORIGIN, "http://evil.example:8081");
        assert_eq!(check(&open(&[]), &[(HOST, "evil.example:8081"), origin]), Err("host"));
    }

    #[test]
    fn a_listed_name_is_let_in_with_its_port_or_with_any_if_it_has_none() {
        let guard = open(&["posthaste.internal", "behind.example:9000"]);
        for host in ["posthaste.internal", "POSTHASTE.internal:9000", "behind.example:9000"] {
            assert_eq!(check(&guard, &[(HOST, host)]), Ok(()), "{host}");
        }
        assert_eq!(check(&guard, &[(HOST, "behind.example:9001")]), Err("host"));
        let local = Guard::new("127.0.0.1:8081".parse().unwrap(), vec!["behind.example".parse().unwrap()]);
        let https = [(HOST, "behind.example"), (ORIGIN, "https://behind.example")];
        assert_eq!(check(&local, &https), Ok(()), "something before it has ended TLS");
    }

    #[test]
    fn on_an_open_address_an_origin_must_equal_the_host() {
        let guard = open(&["posthaste.internal"]);
        let host = (HOST, "posthaste.internal:9000");
        for origin in ["http://posthaste.internal:9000", "https://posthaste.internal:9000"] {
            assert_eq!(check(&guard, &[host.clone(), (ORIGIN, origin)]), Ok(()));
        }
        assert_eq!(check(&guard, &[host, (ORIGIN, "http://localhost:8081")]), Err("origin"));
    }

    #[test]
    fn probes_may_ask_under_any_name_but_not_from_another_page() {
        for guard in [loopback(), open(&[])] {
            for path in PROBES {
                let ask = |pairs: &[_]| asked(&guard, Version::HTTP_11, path, &headers(pairs));
                assert_eq!(ask(&[(HOST, "posthaste-0.pod")]), Ok(()), "{path}");
                assert_eq!(ask(&[(HOST, "posthaste-0.pod"), (ORIGIN, "http://evil.example")]), Err("origin"), "{path}");
            }
            assert_eq!(asked(&guard, Version::HTTP_11, "/livez/x", &headers(&[(HOST, "pod")])), Err("host"));
        }
    }
}
