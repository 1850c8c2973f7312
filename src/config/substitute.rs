//! `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` in values.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Where variables come from; the process's environment, or a map in tests.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The largest file that `${file:…}` reads, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// A value with its references replaced. No `Debug`: it may be a secret.
pub(super) struct Substituted {
    pub value: String,
    /// Part of it came from a file: it is never shown.
    pub from_file: bool,
}

/// A reference that has no value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// As it stands in the value.
    pub reference: String,
    pub message: String,
    pub help: String,
}

/// Replaces every reference, left to right; what is put in is not looked at again. `$${` becomes `${`.
/// A relative path of a `${file:…}` starts at `folder`.
pub(super) fn substitute(text: &str, env: Environment<'_>, folder: &Path) -> Result<Substituted, Refused> {
    let mut done = Substituted { value: String::with_capacity(text.len()), from_file: false };
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from_dollar) = rest.split_at(at);
        done.value.push_str(before);
        if let Some(after) = from_dollar.strip_prefix("$${") {
            done.value.push_str("${");
            rest = after;
        } else if let Some(inner) = from_dollar.strip_prefix("${") {
            let Some((inner, after)) = inner.split_once('}') else {
                return Err(Refused {
                    reference: from_dollar.to_owned(),
                    message: "this `${` is never closed".to_owned(),
                    help: "close it with `}`, or write `$${` for a literal `${`".to_owned(),
                });
            };
            resolve(inner, env, folder, &mut done)?;
            rest = after;
        } else {
            done.value.push('$');
            rest = from_dollar.strip_prefix('$').unwrap_or_default();
        }
    }
    done.value.push_str(rest);
    Ok(done)
}

fn resolve(inner: &str, env: Environment<'_>, folder: &Path, done: &mut Substituted) -> Result<(), Refused> {
    let refused =
        |message: String, help: &str| Refused { reference: format!("${{{inner}}}"), message, help: help.to_owned() };
    if inner.contains("${") {
        return Err(refused("references do not nest".to_owned(), "compute the value outside, in one variable"));
    }
    if let Some(variable) = inner.strip_prefix("env:") {
        let (name, default) = variable.split_once(":-").map_or((variable, None), |(name, rest)| (name, Some(rest)));
        if !is_variable_name(name) {
            let message = "this `${env:…}` names no variable".to_owned();
            return Err(refused(message, "a name is letters, digits and `_`; a default follows `:-`"));
        }
        let value = env(name).filter(|value| !value.is_empty()).or(default.map(str::to_owned));
        let Some(value) = value else {
            return Err(refused(
                format!("the environment variable `{name}` is not set, or empty"),
                &format!("set it, or give a default: ${{env:{name}:-…}}"),
            ));
        };
        done.value.push_str(&value);
    } else if let Some(path) = inner.strip_prefix("file:") {
        if path.contains(":-") {
            return Err(refused("`${file:…}` takes no default".to_owned(), "name a file that exists"));
        }
        let value = read_file(&folder.join(path)).map_err(|(message, help)| refused(message, help))?;
        done.value.push_str(&value);
        done.from_file = true;
    } else {
        return Err(refused(
            "only `${env:…}` and `${file:…}` are replaced".to_owned(),
            "write `$${` for a literal `${`",
        ));
    }
    Ok(())
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The file's text without its final newline.
fn read_file(path: &Path) -> Result<String, (String, &'static str)> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        (format!("the file `{shown}` cannot be read: {error}"), "check the path and who may read the file")
    };
    // Looked at before it is opened: a pipe would be waited for, and a device may do something.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err((
            format!("`{shown}` is not a regular file"),
            "name a file with the value, no pipe, device or folder",
        ));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err((
            format!("the file `{shown}` is larger than 64 KiB"),
            "it holds one value; is this the right file?",
        ));
    }
    let mut text = String::from_utf8(bytes)
        .map_err(|_| (format!("the file `{shown}` is not UTF-8"), "save it as UTF-8; values are text"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${env:HOST}: [x".to_owned()),
            _ => None,
        }
    }

    fn value(text: &str) -> String {
        substitute(text, &env, Path::new(".")).unwrap().value
    }

    fn refusal(text: &str) -> Refused {
        match substitute(text, &env, Path::new(".")) {
            Ok(done) => panic!("{text} became {}", done.value),
            Err(refused) => refused,
        }
    }

    #[test]
    fn a_set_variable_replaces_its_reference_and_leaves_the_rest() {
        assert_eq!(value("a-${env:HOST}:${env:HOST:-x}/b"), "a-db:db/b");
    }

    #[test]
    fn an_unset_or_empty_variable_takes_the_default_which_may_be_empty() {
        assert_eq!(value("${env:NOPE:-16}"), "16");
        assert_eq!(value("${env:EMPTY:-16}"), "16");
        assert_eq!(value("[${env:NOPE:-}]"), "[]");
        assert_eq!(value("${env:NOPE:-a:-b}"), "a:-b");
    }

    #[test]
    fn an_unset_or_empty_variable_without_default_is_an_error() {
        assert!(refusal("${env:NOPE}").message.contains("`NOPE` is not set"));
        assert!(refusal("${env:EMPTY}").message.contains("`EMPTY` is not set, or empty"));
    }

    #[test]
    fn a_doubled_dollar_is_a_literal_brace_and_a_single_dollar_nothing_special() {
        assert_eq!(value("$${env:HOST}"), "${env:HOST}");
        assert_eq!(value("$1 $ $$ a$b $"), "$1 $ $$ a$b $");
        assert_eq!(value("$${x} ${env:HOST}"), "${x} db");
    }

    #[test]
    fn what_is_put_in_is_never_looked_at_again() {
        assert_eq!(value("${env:TRICKY}"), "${env:HOST}: [x");
        assert!(refusal("${env:NOPE:-${env:HOST}}").message.contains("do not nest"));
    }

    #[test]
    fn any_other_brace_is_an_error() {
        for text in ["${HOST}", "${}", "${ENV:HOST}", "${sys:x}"] {
            assert!(refusal(text).message.contains("only"), "{text}");
        }
        assert!(refusal("x ${env:HOST").message.contains("never closed"));
        for text in ["${env:}", "${env:1A}", "${env:A B}", "${env:A-B}"] {
            assert!(refusal(text).message.contains("names no variable"), "{text}");
        }
    }

    #[test]
    fn a_file_gives_its_text_without_the_final_newline_and_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(folder.path().join("secret"), bytes).unwrap();
            substitute("<${file:secret}>", &env, folder.path())
        };
        let done = read(b"hunter2\n").unwrap();
        assert_eq!((done.value.as_str(), done.from_file), ("<hunter2>", true));
        assert_eq!(read(b"hunter2").unwrap().value, "<hunter2>");
        assert_eq!(read(b"a\nb\r\n").unwrap().value, "<a\nb>");
        assert_eq!(read(b"a\n\n").unwrap().value, "<a\n>");
        assert!(read(b"\xff").err().unwrap().message.contains("not UTF-8"));
        assert_eq!(read(&[b'x'; 65536]).unwrap().value.len(), 65538);
        assert!(read(&[b'x'; 65537]).err().unwrap().message.contains("larger than 64 KiB"));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_a_link_to_one_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _listening = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink(path("pipe"), path("link")).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        for other in ["pipe", "socket", "link", "folder", "/dev/zero", "/dev/null"] {
            let refused = substitute(&format!("${{file:{other}}}"), &env, folder.path()).err().unwrap();
            assert!(refused.message.contains("is not a regular file"), "{other}: {}", refused.message);
        }
        std::fs::write(path("file"), "x").unwrap();
        std::os::unix::fs::symlink(path("file"), path("secret")).unwrap();
        assert_eq!(substitute("${file:secret}", &env, folder.path()).unwrap().value, "x");
    }

    #[test]
    fn a_missing_file_or_a_default_for_one_is_an_error() {
        assert!(refusal("${file:/no/such/file}").message.contains("/no/such/file"));
        assert!(refusal("${file:/etc/hostname:-x}").message.contains("no default"));
    }
}
