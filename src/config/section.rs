//! Taking keys from a mapping: every mistake is reported and reading goes on, so that all show at once.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::diagnostic::{Place, Report};
use super::keys::{PLANNED, Shape};
use super::redact;
use super::snippet::MASK;
use super::substitute::{Environment, substitute};
use super::tree::{Entry, Node, Value};
use super::values::{Wrong, did_you_mean, one_of};
use crate::model::text::is_harmful;

/// What reading needs besides the tree.
pub(super) struct Context<'a> {
    pub report: Report,
    pub env: Environment<'a>,
    /// Where the relative paths of `${file:…}` start: the folder of the file being read.
    pub folder: PathBuf,
    /// Every value with a part from a `${file:…}`.
    pub from_files: Vec<SecretString>,
}

impl<'a> Context<'a> {
    pub fn new(env: Environment<'a>) -> Self {
        Self { report: Report::default(), env, folder: PathBuf::new(), from_files: Vec::new() }
    }

    pub fn enter(&mut self, file: &Path) {
        self.folder = file.parent().map(Path::to_owned).unwrap_or_default();
    }
}

/// A text from a file with its place. No `Debug`, and `shown` for messages: it may be a secret.
#[derive(Clone)]
pub(super) struct Text {
    pub value: String,
    pub at: Place,
    secret: bool,
}

impl Text {
    /// Stands for a text whose absence or mistake was reported already; never valid, so checks skip it.
    pub fn absent(at: Place) -> Self {
        Self { value: String::new(), at, secret: false }
    }

    pub fn is_absent(&self) -> bool {
        self.value.is_empty()
    }

    /// For messages: short, on one line, `***` for a secret.
    pub fn shown(&self) -> Cow<'_, str> {
        if self.secret {
            return Cow::Borrowed(MASK);
        }
        if self.value.chars().count() <= 60 && !self.value.contains(is_harmful) {
            return Cow::Borrowed(&self.value);
        }
        let line = self.value.chars().map(|c| if is_harmful(c) { ' ' } else { c });
        Cow::Owned(line.take(60).chain(['…']).collect())
    }

    /// The text as a name to propose; None for a secret.
    pub fn proposable(&self) -> Option<&str> {
        (!self.secret && !self.is_absent()).then_some(self.value.as_str())
    }
}

/// A checked value with its place.
#[derive(Clone, Copy)]
pub(super) struct At<T> {
    pub value: T,
    pub at: Place,
}

/// A mapping whose keys are taken one by one; `finish` reports what is left over.
#[must_use = "call finish: it reports the keys that nobody took"]
pub(super) struct Section {
    pub at: Place,
    pub shape: &'static Shape,
    entries: Vec<Entry>,
}

impl Section {
    pub fn open(node: Node, shape: &'static Shape, cx: &mut Context<'_>) -> Option<Self> {
        match node.value {
            Value::Mapping(entries) => Some(Self { at: node.at, shape, entries }),
            other => {
                let keys = one_of(shape.keys);
                let message = format!("{} must be a mapping, not {}", shape.label, other.kind());
                cx.report.error(node.at, message, format!("its keys are {keys}"));
                None
            }
        }
    }

    pub fn take(&mut self, key: &str) -> Option<Entry> {
        debug_assert!(self.shape.keys.contains(&key), "{key} is missing in the shape of {}", self.shape.path);
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.swap_remove(at))
    }

    /// The mapping under a key.
    pub fn section(&mut self, key: &str, shape: &'static Shape, cx: &mut Context<'_>) -> Option<Self> {
        let entry = self.take_filled(key, cx)?;
        Self::open(entry.value, shape, cx)
    }

    /// The items of the list under a key. None when it is absent or no list.
    pub fn list(&mut self, key: &str, cx: &mut Context<'_>) -> Option<At<Vec<Node>>> {
        let entry = self.take_filled(key, cx)?;
        match entry.value.value {
            Value::Sequence(items) => Some(At { value: items, at: entry.value.at }),
            other => {
                let message = format!("`{key}` must be a list, not {}", other.kind());
                cx.report.error(entry.value.at, message, "start each item with `- `, or write [ … ]");
                None
            }
        }
    }

    /// The texts of the list under a key; empty when it is absent.
    pub fn texts(&mut self, key: &str, cx: &mut Context<'_>) -> Vec<Text> {
        let items = self.list(key, cx).map(|list| list.value).unwrap_or_default();
        items.into_iter().filter_map(|item| text_of(key, item, true, cx)).collect()
    }

    /// A text with its references replaced; None when the key is absent or the value no text.
    pub fn text(&mut self, key: &str, cx: &mut Context<'_>) -> Option<Text> {
        let entry = self.take_filled(key, cx)?;
        let text = text_of(key, entry.value, true, cx)?;
        if text.is_absent() {
            cx.report.error(text.at, format!("`{key}` is empty"), "give it a value, or remove the key");
            return None;
        }
        Some(text)
    }

    /// As `text`, but an empty value counts as no value: `${env:DB_PASSWORD:-}`.
    pub fn text_or_nothing(&mut self, key: &str, cx: &mut Context<'_>) -> Option<Text> {
        let entry = self.take_filled(key, cx)?;
        text_of(key, entry.value, true, cx).filter(|text| !text.is_absent())
    }

    /// As `text`, but `${…}` means nothing in it.
    pub fn required_verbatim(&mut self, key: &str, cx: &mut Context<'_>) -> Text {
        self.require(key, cx, |key, node, cx| text_of(key, node, false, cx))
    }

    /// A text that must be there; `Text::absent` after reporting that it is not.
    pub fn required(&mut self, key: &str, cx: &mut Context<'_>) -> Text {
        self.require(key, cx, |key, node, cx| text_of(key, node, true, cx))
    }

    fn require(
        &mut self,
        key: &str,
        cx: &mut Context<'_>,
        read: fn(&str, Node, &mut Context<'_>) -> Option<Text>,
    ) -> Text {
        let Some(entry) = self.take(key) else {
            self.missing(key, cx);
            return Text::absent(self.at);
        };
        if matches!(entry.value.value, Value::Null) {
            no_value(key, entry.key_at, cx);
            return Text::absent(entry.key_at);
        }
        let at = entry.value.at;
        match read(key, entry.value, cx) {
            Some(text) if text.is_absent() => {
                cx.report.error(at, format!("`{key}` is empty"), "give it a value");
                text
            }
            Some(text) => text,
            None => Text::absent(at),
        }
    }

    /// A required text of a certain form. One of another form is reported and kept, so that what refers to it fits.
    pub fn required_form(&mut self, key: &str, form: fn(&str) -> Result<(), Wrong>, cx: &mut Context<'_>) -> Text {
        let text = self.required(key, cx);
        if !text.is_absent() {
            checked(key, &text, form, cx);
        }
        text
    }

    /// A value of a certain form; None when the key is absent or the value wrong.
    pub fn parsed<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
        cx: &mut Context<'_>,
    ) -> Option<At<T>> {
        let text = self.text(key, cx)?;
        Some(At { value: checked(key, &text, parse, cx)?, at: text.at })
    }

    pub fn missing(&self, key: &str, cx: &mut Context<'_>) {
        let near = self.entries.iter().find(|entry| {
            !self.shape.keys.contains(&entry.key.as_str()) && did_you_mean(&entry.key, std::iter::once(key)).is_some()
        });
        // A misspelt key is reported as such; that it is therefore missing need not be said again.
        if near.is_none() {
            cx.report.error(self.at, format!("`{key}` is missing in {}", self.shape.label), format!("add `{key}:`"));
        }
    }

    /// The one entry among `kinds`; none, two or an unknown one is reported.
    pub fn kind(&mut self, kinds: &[&str], cx: &mut Context<'_>) -> Option<Entry> {
        let mut found: Vec<Entry> = kinds.iter().filter_map(|kind| self.take(kind)).collect();
        found.sort_by_key(|entry| entry.key_at);
        let label = self.shape.label;
        if found.len() > 1 {
            let names: Vec<_> = found.iter().map(|entry| format!("`{}`", entry.key)).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let message = format!("{label} is of one kind, and here are {}: {}", names.len(), names.join(", "));
            let at = found.get(1).map_or(self.at, |entry| entry.key_at);
            cx.report.error(at, message, format!("keep one of {}", one_of(&names)));
            return None;
        }
        if found.is_empty() {
            let (unknown, known): (Vec<_>, _) = std::mem::take(&mut self.entries)
                .into_iter()
                .partition(|entry| !self.shape.keys.contains(&entry.key.as_str()));
            self.entries = known;
            let names: Vec<_> = unknown.iter().map(|entry| format!("`{}`", entry.key)).collect();
            let message = match names.as_slice() {
                [] => format!("{label} needs its kind"),
                names => format!("{label} needs its kind; {} is none", names.join(", ")),
            };
            let planned = unknown.iter().find(|entry| PLANNED.contains(&entry.key.as_str()));
            if let Some(planned) = planned {
                let message = format!("{label} of the kind `{}` is not available yet", planned.key);
                cx.report.error(planned.key_at, message, format!("this version has {}", kinds.join(", ")));
                return None;
            }
            let near = unknown.iter().find_map(|entry| did_you_mean(&entry.key, kinds.iter().copied()));
            let at = unknown.first().map_or(self.at, |entry| entry.key_at);
            let help = near.unwrap_or_else(|| format!("exactly one of {} may stand here", one_of(kinds)));
            cx.report.error(at, message, help);
        }
        found.pop()
    }

    /// Whether a text under a key is folded (`>`): its lines are joined.
    pub fn is_folded(&self, key: &str, cx: &Context<'_>) -> bool {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.is_some_and(|entry| cx.report.text_after(entry.key_at, &entry.key_bytes).starts_with('>'))
    }

    /// Takes out what a comma has torn off an unquoted text in `{ … }`: keys that nobody knows, without values.
    pub fn take_torn(&mut self) -> bool {
        let all = self.entries.len();
        let keys = self.shape.keys;
        self.entries.retain(|entry| keys.contains(&entry.key.as_str()) || !matches!(entry.value.value, Value::Null));
        self.entries.len() < all
    }

    /// Reports every key that nobody took.
    pub fn finish(self, cx: &mut Context<'_>) {
        for entry in self.entries {
            let help = did_you_mean(&entry.key, self.shape.keys.iter().copied())
                .unwrap_or_else(|| format!("the keys of {} are {}", self.shape.label, self.shape.keys.join(", ")));
            let hidden = cx.report.is_secret(entry.key_at.file, &entry.key_bytes);
            let key = if hidden { MASK } else { &entry.key };
            cx.report.error(entry.key_at, format!("unknown key `{key}` in {}", self.shape.label), help);
        }
    }

    fn take_filled(&mut self, key: &str, cx: &mut Context<'_>) -> Option<Entry> {
        let entry = self.take(key)?;
        if matches!(entry.value.value, Value::Null) {
            no_value(key, entry.key_at, cx);
            return None;
        }
        Some(entry)
    }
}

fn no_value(key: &str, at: Place, cx: &mut Context<'_>) {
    cx.report.error(at, format!("`{key}` has no value"), "give it one, or remove the key");
}

/// Applies a form to a text and reports what is wrong with it.
pub(super) fn checked<T>(
    key: &str,
    text: &Text,
    parse: impl Fn(&str) -> Result<T, Wrong>,
    cx: &mut Context<'_>,
) -> Option<T> {
    match parse(&text.value) {
        Ok(value) => Some(value),
        Err(wrong) => {
            let message = format!("`{key}` must be {}, not `{}`", wrong.expected, text.shown());
            cx.report.error(text.at, message, wrong.help);
            None
        }
    }
}

/// A node as text, with its references replaced if `replace`.
fn text_of(key: &str, node: Node, replace: bool, cx: &mut Context<'_>) -> Option<Text> {
    let Value::Scalar(raw) = node.value else {
        let message = format!("`{key}` must be a single value, not {}", node.value.kind());
        cx.report.error(node.at, message, "quote a text that starts with `[`, `{` or `-`");
        return None;
    };
    let mut secret = redact::is_secret_key(key) || cx.report.is_secret(node.at.file, &node.bytes);
    let value = if replace {
        match substitute(&raw, cx.env, &cx.folder) {
            Ok(done) => {
                if done.from_file {
                    cx.from_files.push(SecretString::from(done.value.clone()));
                }
                secret |= done.from_file;
                done.value
            }
            Err(refused) => {
                let at = cx.report.find(node.at, node.bytes, &refused.reference);
                cx.report.error(at, refused.message, refused.help);
                return None;
            }
        }
    } else {
        raw
    };
    secret |= redact::has_credentials(&value);
    Some(Text { value, at: node.at, secret })
}
