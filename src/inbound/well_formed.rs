//! What HTTP/1.1 itself asks of a request's head beyond what the parser checks (RFC 9112). For both surfaces.

use axum::http::header::{CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, Version};

use super::problem::{Effect, Problem};

/// Answers the host that the client means; `None` only in HTTP/1.0.
///
/// # Errors
/// 400 without exactly one valid Host, or with two content types; 501 for a transfer coding that is not undone here.
pub fn well_formed(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Problem> {
    let host = host_of(version, uri, headers)?;
    // The parser refuses a message that does not end in chunked, and undoes that coding alone.
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let only_chunked = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if !only_chunked {
        let detail = "no Transfer-Encoding but chunked is undone here; a compressed body has a Content-Encoding";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, detail).effect(Effect::None));
    }
    if headers.get_all(CONTENT_TYPE).iter().nth(1).is_some() {
        return Err(bad_request("header content-type stands there more than once"));
    }
    Ok(host)
}

/// Whoever speaks HTTP/1.1 says it, also beside a whole url, which then wins.
fn host_of(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<Authority>, Problem> {
    let wrong = || bad_request("exactly one valid Host header is needed");
    let mut given = headers.get_all(HOST).iter();
    let host = match (given.next(), given.next()) {
        (None, _) if version < Version::HTTP_11 => None,
        (None, _) | (Some(_), Some(_)) => return Err(wrong()),
        (Some(host), None) => {
            let host: Authority = host.as_bytes().try_into().map_err(|_invalid| wrong())?;
            Some(host).filter(|host| !host.as_str().contains('@')).ok_or_else(wrong).map(Some)?
        }
    };
    Ok(uri.authority().cloned().or(host))
}

fn bad_request(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail).effect(Effect::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(version: Version, uri: &'static str, lines: &[(&'static str, &str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let answer = well_formed(version, &Uri::from_static(uri), &headers);
        answer.err().map_or(200, |problem| problem.status().as_u16())
    }

    #[test]
    fn http_1_1_needs_exactly_one_valid_host_and_http_1_0_none() {
        for host in ["localhost", "localhost:8080", "[::1]:8080", "my_service:80", "10.0.0.1"] {
            assert_eq!(status(Version::HTTP_11, "/", &[("host", host)]), 200, "{host}");
        }
        for lines in [
            &[][..],
            &[("host", "a"), ("host", "a")],
            &[("host", "")],
            &[("host", "a b")],
            &[("host", "u@a")],
            &[("host", "a/b")],
        ] {
            assert_eq!(status(Version::HTTP_11, "/", lines), 400, "{lines:?}");
        }
        assert_eq!(status(Version::HTTP_11, "http://a/", &[]), 400, "a whole url is no substitute");
        assert_eq!(status(Version::HTTP_10, "/", &[]), 200);
        assert_eq!(status(Version::HTTP_10, "/", &[("host", "a"), ("host", "a")]), 400);
    }

    #[test]
    fn a_whole_url_wins_over_the_host_beside_it() {
        let headers = HeaderMap::from_iter([(HOST, "mine".parse().unwrap())]);
        let host = well_formed(Version::HTTP_11, &Uri::from_static("http://theirs:1/"), &headers).unwrap();
        assert_eq!(host.unwrap().as_str(), "theirs:1");
    }

    #[test]
    fn no_transfer_coding_but_chunked_alone_is_taken() {
        let with = |codings: &[&'static str]| {
            let lines: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            status(Version::HTTP_11, "/", &[&[("host", "a")], lines.as_slice()].concat())
        };
        assert_eq!((with(&["chunked"]), with(&["Chunked "])), (200, 200));
        for codings in [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &["identity, chunked"]] {
            assert_eq!(with(codings), 501, "{codings:?}");
        }
    }

    #[test]
    fn two_content_types_are_not_guessed_between() {
        let (one, other) = (("content-type", "text/plain"), ("content-type", "text/html"));
        assert_eq!(status(Version::HTTP_11, "/", &[("host", "a"), one]), 200);
        assert_eq!(status(Version::HTTP_11, "/", &[("host", "a"), one, other]), 400);
    }
}
