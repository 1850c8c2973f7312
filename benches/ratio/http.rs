//! The head of an answer, as far as the load generator must understand it. Pure.

/// What stands in the first bytes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub retry_after: bool,
    /// It says itself that nothing was done and nothing will be.
    pub nothing_done: bool,
    /// Of head and body together.
    pub length: usize,
}

/// Reads a head; `None` while it is not complete.
///
/// # Errors
/// What is no answer of HTTP/1.1.
pub fn head_in(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = bytes.get(..end).unwrap_or_default();
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix(b"HTTP/1.1 ").and_then(|rest| number(rest.get(..3)?));
    let status = status.ok_or_else(|| format!("no answer: {:?}", String::from_utf8_lossy(first)))?;
    let (mut body, mut retry_after, mut nothing_done) = (0, false, false);
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = line.get(..colon).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = number(value_of(line, colon));
            body = value.ok_or_else(|| format!("no length: {:?}", String::from_utf8_lossy(line)))?;
        } else if name.eq_ignore_ascii_case(b"retry-after") {
            retry_after = true;
        } else if name.eq_ignore_ascii_case(b"x-outcome") {
            nothing_done = value_of(line, colon) == b"none";
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err("an answer in chunks is not understood".to_owned());
        }
    }
    let status = u16::try_from(status).map_err(|error| error.to_string())?;
    Ok(Some(Head { status, retry_after, nothing_done, length: end + 4 + body }))
}

fn value_of(line: &[u8], colon: usize) -> &[u8] {
    line.get(colon + 1..).unwrap_or_default().trim_ascii()
}

fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
