//! Which bytes of a file are secret, judged by key and by form, before anything is typed.

use std::ops::Range;

use super::tree::{Entry, Node, Value};

/// Whether a value under this key is never shown; a misspelt `pasword` counts as well.
pub(super) fn is_secret_key(key: &str) -> bool {
    let key = key.to_lowercase();
    is_url_key(&key) || is_password_key(&key)
}

fn is_password_key(key: &str) -> bool {
    ["pass", "pwd", "secret", "token", "credential", "apikey", "api_key", "dsn"].iter().any(|word| key.contains(word))
        || strsim::damerau_levenshtein(key, "password") <= 3
}

/// A url may carry a password in more forms than anybody knows.
fn is_url_key(key: &str) -> bool {
    ["url", "uri"].iter().any(|word| key.ends_with(word))
        || strsim::damerau_levenshtein(key, "url") <= 1
        || strsim::damerau_levenshtein(key, "managementurl") <= 3
}

/// Whether a text is a url that carries a user or a password, or says `password=` as others do.
pub(super) fn has_credentials(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@')) || assigned_password(text).is_some()
}

/// Where the value begins in `password=value`; a statement's `password = $1` is none.
fn assigned_password(text: &str) -> Option<usize> {
    let equals = text.char_indices().filter(|(_, c)| *c == '=').map(|(at, _)| at + 1);
    equals.into_iter().find(|at| {
        let before = text.get(..*at - 1).unwrap_or_default().trim_end().to_lowercase();
        let after = text.get(*at..).unwrap_or_default().trim_start();
        let parameter = after.strip_prefix('$').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        ["password", "passwd", "pwd", "secret", "token"].iter().any(|word| before.ends_with(word)) && !parameter
    })
}

/// A secret in a file that was read.
pub(super) struct Secret {
    pub bytes: Range<usize>,
    /// A reference such as `${env:DB_PASSWORD}` may be shown; what it stands for may not.
    pub shown_as_written: bool,
}

/// The secrets of a file that was read.
pub(super) fn in_tree(node: &Node, source: &str) -> Vec<Secret> {
    let mut found = Vec::new();
    walk(node, false, source, &mut found);
    found
}

fn walk(node: &Node, secret: bool, source: &str, found: &mut Vec<Secret>) {
    match &node.value {
        Value::Null => {}
        Value::Scalar(text) => {
            if secret || has_credentials(text) {
                let bytes = with_comment(node.bytes.clone(), source);
                found.push(Secret { bytes, shown_as_written: is_plain_reference(text) });
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| walk(item, secret, source, found)),
        Value::Mapping(entries) => {
            let mut split: Option<&Entry> = None;
            for entry in entries {
                let secret_key = is_secret_key(&entry.key);
                // `{ password: hunter,2 }` is a password and a key `2` without a value. So it is with a url on one line; below
                // it other keys stand.
                let goes_on = |before: &&Entry| {
                    let apart = before.key_at.line != entry.key_at.line && is_url_key(&before.key.to_lowercase());
                    matches!(entry.value.value, Value::Null) && !apart
                };
                split = if secret_key { Some(entry) } else { split.filter(goes_on) };
                if secret || (split.is_some() && !secret_key) {
                    found.push(Secret { bytes: entry.key_bytes.clone(), shown_as_written: false });
                }
                walk(&entry.value, secret || secret_key, source, found);
            }
        }
    }
}

/// `${env:NAME}` or `${file:PATH}` alone says where a secret is, not what it is.
fn is_plain_reference(text: &str) -> bool {
    let inner = text.strip_prefix("${env:").or(text.strip_prefix("${file:"));
    let Some(name) = inner.and_then(|rest| rest.strip_suffix('}')) else { return false };
    !name.contains(":-") && !name.contains(['$', '{', '}'])
}

/// The bytes and a comment right behind them, which may hold the former password.
fn with_comment(bytes: Range<usize>, source: &str) -> Range<usize> {
    let rest = source.get(bytes.end..).unwrap_or_default();
    let line = rest.split('\n').next().unwrap_or_default();
    if line.trim_start().starts_with('#') { bytes.start..bytes.end + line.len() } else { bytes }
}

/// The secret bytes of a file that is no YAML: from a secret key's colon to the end of its line, and on through deeper
/// lines or an open quote; whole rests of lines with a url that carries credentials. Rather too much than too little.
pub(super) fn in_text(source: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut open = None;
    let mut start = 0;
    for line in source.split_inclusive('\n') {
        let end = start + line.len();
        open = match open {
            Some(state @ Open::Deeper(than)) if line.trim().is_empty() || indentation(line) > than => {
                found.push(start..end);
                Some(state)
            }
            Some(Open::Quote(quote)) => {
                found.push(start..end);
                (!line.contains(quote)).then_some(Open::Quote(quote))
            }
            Some(Open::Deeper(_)) | None => mask_line(line, start, &mut found),
        };
        start = end;
    }
    found
}

/// What keeps the next lines secret.
#[derive(Clone, Copy)]
enum Open {
    /// Lines indented deeper than the key.
    Deeper(usize),
    /// Everything up to the closing quote.
    Quote(char),
}

fn mask_line(line: &str, start: usize, found: &mut Vec<Range<usize>>) -> Option<Open> {
    let end = start + line.len();
    if let Some((before, _)) = line.split_once("://").filter(|(_, rest)| rest.contains('@')) {
        found.push(start + before.len()..end);
    }
    found.extend(assigned_password(line).map(|at| start + at..end));
    let colon = line.char_indices().filter(|(_, c)| *c == ':').map(|(at, _)| at).find(|at| {
        let before = line.get(..*at).unwrap_or_default();
        let key = before.rsplit(['{', ',', '[']).next().unwrap_or_default();
        is_secret_key(key.trim_matches([' ', '\t', '-', '?', '"', '\'']))
    })?;
    found.push(start + colon + 1..end);
    let value = line.get(colon + 1..).unwrap_or_default().trim();
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) if value.matches(quote).count() == 1 => Some(Open::Quote(quote)),
        _ => Some(Open::Deeper(indentation(line))),
    }
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(source: &str) -> String {
        let mut shown: Vec<u8> = source.bytes().collect();
        for range in in_text(source) {
            for byte in &mut shown[range] {
                if *byte != b'\n' {
                    *byte = b'*';
                }
            }
        }
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn keys_that_hold_secrets_are_known_even_misspelt() {
        for key in ["password", "Password", "pasword", "passwrd", "pwd", "dbPassword", "clientSecret", "token"] {
            assert!(is_secret_key(key), "{key}");
        }
        for key in ["url", "URL", "ulr", "urll", "jdbcUrl", "managementUrl", "managmentURl", "uri", "dsn"] {
            assert!(is_secret_key(key), "{key}");
        }
        for key in ["name", "username", "poolMaxSize", "listen", "home", "sql", "uriPattern", "role", "queues", "vhost"]
        {
            assert!(!is_secret_key(key), "{key}");
        }
    }

    #[test]
    fn a_password_is_known_in_whatever_form_it_is_assigned() {
        for text in
            ["host=db password=x", "jdbc:postgresql://db/a?user=u&password=x", "Server=db;Pwd = x", "password='x'"]
        {
            assert!(has_credentials(text), "{text}");
        }
        for text in ["postgres://db/a", "UPDATE login SET password = $1", "a=b", "=", "password", "äöü = password"] {
            assert!(!has_credentials(text), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_no_yaml_shows_no_password() {
        for source in [
            "password: hunter2: x\n",
            "- { name: main, password: hunter2, url: [\n",
            "pasword: hunter2\n",
            "password:\n  hunter2\n   hunter2\nname: [",
            "password: \"hunter2\nhunter2\nx\"\nname: [",
            "\"password\": hunter2",
            "url: postgres://u:hunter2@host/db: x",
            "password: |\n\n  hunter2\n",
            "url: host=db password=hunter2: x\n",
            "home: host=db password=hunter2: x\n",
            "- { name: main, url: jdbc:postgresql:db?password=hunter2, home: [\n",
        ] {
            assert!(!masked(source).contains("hunter2"), "{}", masked(source));
        }
        assert_eq!(masked("password: x\nname: y\n"), "password:**\nname: y\n");
    }
}
