//! A YAML file as a tree in which every key and value knows where it stands. `tree` and `bare` alone name the YAML reader.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde_saphyr::{Error as YamlError, Location, NonFiniteFloatPolicy, Spanned};

use super::bare::Bare;
use super::diagnostic::{FileId, Place, Report};
use super::redact::{self, Secret};

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The deepest nesting; the files described in docs/configuration.md need 9.
const MAX_DEPTH: usize = 32;
/// The most nodes of one file, and the most that its aliases may copy.
const MAX_NODES: usize = 100_000;
const MAX_ALIASED: usize = 10_000;

/// A value and its place. No `Debug`: it may hold a password.
pub(super) struct Node {
    pub at: Place,
    /// Of a scalar: its text in the file, with quotes.
    pub bytes: Range<usize>,
    pub value: Value,
}

pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar's text, whatever YAML would take it for: `05` stays `05`.
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

pub(super) struct Entry {
    pub key: String,
    pub key_at: Place,
    pub key_bytes: Range<usize>,
    pub value: Node,
}

impl Value {
    /// For messages: what was found.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

/// Reads a file into a tree and registers its secrets; whatever prevents that is reported, and None returned.
pub(super) fn read(path: &Path, report: &mut Report) -> Option<Node> {
    match read_text(path) {
        Ok(text) => parse(path, &text, report),
        Err((message, help)) => {
            report.error_in(path, message, help);
            None
        }
    }
}

fn read_text(path: &Path) -> Result<String, (String, String)> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err((
            format!("it cannot be read: {error}"),
            "check the path (--resources, --configurations) and who may read the file".to_owned(),
        ));
    }
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(("it is larger than 1 MiB".to_owned(), "no configuration is; is this the right file?".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count();
        (format!("line {line} is not UTF-8"), "save the file as UTF-8".to_owned())
    })
}

fn parse(path: &Path, text: &str, report: &mut Report) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let file = report.add_file(path, text);
    match serde_saphyr::from_str_with_options::<Spanned<Bare>>(text, limits()) {
        Ok(root) => {
            let root = node(root, file, text);
            for secret in redact::in_tree(&root, text) {
                report.keep_secret(file, secret);
            }
            if matches!(root.value, Value::Null) {
                report.error_in(path, "it is empty", "docs/configuration.md shows what belongs into it");
                return None;
            }
            Some(root)
        }
        Err(error) => {
            let secret = redact::in_text(text);
            let (message, help) = explain(error.without_snippet(), text, &secret);
            for bytes in secret {
                report.keep_secret(file, Secret { bytes, shown_as_written: false });
            }
            match error.location() {
                Some(location) => report.error(place(location, file), message, help),
                None => report.error_in(path, message, help),
            }
            None
        }
    }
}

fn limits() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        // Numbers are read from the text: what looks odd to YAML stays as it was written.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED,
        },
    }
}

/// What is wrong, in our words where the reader's speak to programmers.
fn explain(error: &YamlError, text: &str, secret: &[Range<usize>]) -> (String, &'static str) {
    match error {
        YamlError::DuplicateMappingKey { key, location } => {
            // In `{ password: a,b,b }` the key is a piece of the password.
            let key = key.as_deref().filter(|key| is_plain_key(key) || !is_beside_secret(*location, text, secret));
            let key = key.map_or_else(|| "a key".to_owned(), |key| format!("the key `{key}`"));
            (format!("{key} stands twice in this mapping"), "keep one of the two")
        }
        YamlError::MultipleDocuments { .. } => {
            ("a second document starts here".to_owned(), "one file holds one document: remove `---` and what follows")
        }
        YamlError::UnknownAnchor { .. } => {
            ("this alias names no anchor".to_owned(), "quote the value if it shall start with `*`")
        }
        YamlError::RecursiveReferencesRequireWeakTypes { .. } => {
            ("this alias contains itself".to_owned(), "write the value out")
        }
        YamlError::Budget { .. }
        | YamlError::AliasReplayLimitExceeded { .. }
        | YamlError::AliasReplayStackDepthExceeded { .. }
        | YamlError::AliasExpansionLimitExceeded { .. } => (
            "the file is nested too deeply, or too large once its aliases are written out".to_owned(),
            "at most 32 levels, 100,000 values and 10,000 values by alias are read",
        ),
        YamlError::UnsupportedTag { .. } => {
            ("tags (`!…`) mean nothing here".to_owned(), "quote the value if it shall start with `!`")
        }
        YamlError::AliasError { error, .. } => explain(error, text, secret),
        // The reader quotes a character at most, but beside a secret even that is too much.
        YamlError::ExternalMessage { msg, location, .. } if !is_beside_secret(*location, text, secret) => {
            (format!("this is not YAML: {msg}"), syntax_help(msg))
        }
        _ => ("this is not YAML".to_owned(), "check indentation, quotes and brackets here and on the line before"),
    }
}

fn is_plain_key(key: &str) -> bool {
    super::keys::SHAPES.iter().any(|shape| shape.keys.contains(&key))
}

fn syntax_help(message: &str) -> &'static str {
    if message.contains("tab") {
        "indent with spaces"
    } else if message.contains("unexpected character") || message.contains("mapping values are not allowed") {
        "quote the value if it contains `: ` or starts with one of % @ ` & * ! | > [ {"
    } else {
        "check indentation, quotes and brackets here and on the line before"
    }
}

fn is_beside_secret(location: Location, text: &str, secret: &[Range<usize>]) -> bool {
    let line = usize::try_from(location.line()).unwrap_or(0);
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let length = text.split_inclusive('\n').nth(line.saturating_sub(1)).map_or(0, str::len);
    secret.iter().any(|range| range.start < before + length && before < range.end)
}

fn place(location: Location, file: FileId) -> Place {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
    Place { file, line: number(location.line()), column: number(location.column()) }
}

/// The bytes of a location, where a wrong text stands, not where an alias repeats it.
fn bytes(location: Location) -> Range<usize> {
    let span = location.span();
    let number = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let start = number(span.byte_offset());
    start..start + number(span.byte_len())
}

fn node(spanned: Spanned<Bare>, file: FileId, text: &str) -> Node {
    let bytes = bytes(spanned.defined);
    let value = match spanned.value {
        Bare::Null => Value::Null,
        Bare::Text(scalar) => Value::Scalar(scalar),
        Bare::Typed => {
            let written = text.get(bytes.clone()).unwrap_or_default();
            Value::Scalar(written.trim_matches(['"', '\'']).to_owned())
        }
        Bare::Sequence(items) => Value::Sequence(items.into_iter().map(|item| node(item, file, text)).collect()),
        Bare::Mapping(entries) => Value::Mapping(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key: key.value,
                    key_at: place(key.defined, file),
                    key_bytes: self::bytes(key.defined),
                    value: node(value, file, text),
                })
                .collect(),
        ),
    };
    Node { at: place(spanned.defined, file), bytes, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        let mut report = Report::default();
        match parse(Path::new("t.yml"), text, &mut report) {
            Some(node) => node,
            None => panic!("{}", report.into_result().unwrap_err()),
        }
    }

    fn refusal(text: &str) -> String {
        let mut report = Report::default();
        assert!(parse(Path::new("t.yml"), text, &mut report).is_none());
        report.into_result().unwrap_err().to_string()
    }

    /// Every key and scalar as `line:column text`.
    fn places(node: &Node) -> Vec<String> {
        let show = |at: Place, text: &str| format!("{}:{} {text}", at.line, at.column);
        match &node.value {
            Value::Null => vec![show(node.at, "~")],
            Value::Scalar(text) => vec![show(node.at, text)],
            Value::Sequence(items) => items.iter().flat_map(places).collect(),
            Value::Mapping(entries) => entries
                .iter()
                .flat_map(|entry| std::iter::once(show(entry.key_at, &entry.key)).chain(places(&entry.value)))
                .collect(),
        }
    }

    #[test]
    fn every_key_and_value_knows_its_line_and_column() {
        assert_eq!(
            places(&tree("# x\na: 05\nbé:\n  - { c: ü, d: 'e' }\n  - 1e999\nf: !!int \"7\"\n")),
            ["2:1 a", "2:4 05", "3:1 bé", "4:7 c", "4:10 ü", "4:13 d", "4:16 e", "5:5 1e999", "6:1 f", "6:10 7"],
        );
    }

    #[test]
    fn a_scalar_keeps_the_text_that_was_written() {
        let text = "[yes, 1_000, 0x1F, 1.10, 12:30, .inf, -3, true, \"5\", 1mx5]";
        let Value::Sequence(items) = tree(text).value else { panic!("a list") };
        let texts = items.iter().map(|item| match &item.value {
            Value::Scalar(text) => text.as_str(),
            _ => panic!("a scalar"),
        });
        let texts: Vec<_> = texts.collect();
        assert_eq!(texts, ["yes", "1_000", "0x1F", "1.10", "12:30", ".inf", "-3", "true", "5", "1mx5"]);
    }

    #[test]
    fn an_aliased_value_stands_where_its_text_stands() {
        assert_eq!(places(&tree("a: &x 1\nb: *x\n")), ["1:1 a", "1:7 1", "2:1 b", "1:7 1"]);
    }

    #[test]
    fn absurd_files_are_refused_before_they_cost_anything() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        assert!(refusal(&deep).contains("nested"), "{}", refusal(&deep));
        let block: String = (0..40).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(refusal(&block).contains("nested"), "{}", refusal(&block));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let ten = vec![format!("*a{}", n - 1); 10].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{ten}]\n"));
        }
        assert!(refusal(&bomb).contains("aliases"), "{}", refusal(&bomb));
        assert!(refusal("a: &a [*a]").contains("contains itself"));
        let many = format!("[{}]", "1,".repeat(MAX_NODES + 1));
        assert!(refusal(&many).contains("too large"), "{}", refusal(&many));
    }

    #[test]
    fn a_file_over_one_mebibyte_or_not_utf8_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big.yml");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let mut report = Report::default();
            assert!(read(&path, &mut report).is_none());
            report.into_result().unwrap_err().to_string()
        };
        assert!(refused(&vec![b'#'; 1024 * 1024 + 1]).contains("larger than 1 MiB"));
        assert!(refused(b"a: 1\nb: \xff\n").contains("line 2 is not UTF-8"));
        assert!(refused(b"# nothing\n").contains("empty"));
    }

    #[test]
    fn the_reader_never_quotes_a_secret() {
        for text in [
            "password: %hunter2",
            "password: 'hunter2\nname: x",
            "- password: hunter2: x",
            "password: *hunter2",
            "password: !hunter2 x",
            "password: hunter2\npassword: hunter2\n",
            "a: [1\nurl: amqp://u:hunter2@h: 1\n",
        ] {
            assert!(!refusal(text).contains("hunter2"), "{}", refusal(text));
        }
    }
}
