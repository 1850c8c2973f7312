//! What is wrong in the user's files: collected, sorted, and shown with the line it stands on.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::redact::Secret;
use super::snippet;

/// One mistake in one file. Nothing in it shows a password or what came from a `${file:…}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    pub file: PathBuf,
    /// Counted from 1; none when the whole file or folder is meant.
    pub line: Option<usize>,
    /// In characters, counted from 1.
    pub column: Option<usize>,
    pub message: String,
    /// What to do, or the nearest valid name.
    pub help: Option<String>,
    /// The line and a caret below it.
    pub snippet: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(snippet) = &self.snippet {
            write!(f, "\n{snippet}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Every mistake of every file. Nothing was started; correct the files and try again (exit status 78).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct ConfigError {
    /// Sorted by file, line and column; never empty.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for ConfigError {
    /// All mistakes, a blank line between them, and how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            write!(f, "{diagnostic}\n\n")?;
        }
        match self.diagnostics.len() {
            1 => f.write_str("1 mistake in the configuration"),
            n => write!(f, "{n} mistakes in the configuration"),
        }
    }
}

/// A character's place in a file that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub file: FileId,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(usize);

/// A file's text and its secrets.
struct SourceFile {
    path: PathBuf,
    text: String,
    secrets: Vec<Secret>,
}

struct Finding {
    place: Place,
    message: String,
    help: Option<String>,
}

/// Collects mistakes. Snippets are cut at the end, when every secret's place is known.
#[derive(Default)]
pub(super) struct Report {
    files: Vec<SourceFile>,
    findings: Vec<Finding>,
    /// Mistakes that belong to no line.
    whole: Vec<Diagnostic>,
}

impl Report {
    pub fn add_file(&mut self, path: &Path, text: &str) -> FileId {
        self.files.push(SourceFile { path: path.to_owned(), text: text.to_owned(), secrets: Vec::new() });
        FileId(self.files.len() - 1)
    }

    /// These bytes of the file are shown as `***`, wherever a snippet or a message would show them.
    pub fn keep_secret(&mut self, file: FileId, secret: Secret) {
        if let Some(source) = self.files.get_mut(file.0) {
            source.secrets.push(secret);
        }
    }

    /// Whether a value is secret because of where it stands, by whatever key or alias it was reached.
    pub fn is_secret(&self, file: FileId, bytes: &Range<usize>) -> bool {
        let secrets = self.files.get(file.0).map(|source| source.secrets.as_slice()).unwrap_or_default();
        secrets.iter().any(|secret| secret.bytes.start <= bytes.start && bytes.end <= secret.bytes.end)
    }

    pub fn error(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.findings.push(Finding { place, message: message.into(), help });
    }

    /// A mistake of a whole file or folder.
    pub fn error_in(&mut self, path: &Path, message: impl Into<String>, help: impl Into<String>) {
        self.whole.push(Diagnostic {
            file: path.to_owned(),
            line: None,
            column: None,
            message: message.into(),
            help: Some(help.into()).filter(|help| !help.is_empty()),
            snippet: None,
        });
    }

    /// Where a piece of a scalar stands in the file; the scalar's start when the file writes it otherwise.
    pub fn find(&self, scalar: Place, bytes: Range<usize>, piece: &str) -> Place {
        let written = self.files.get(scalar.file.0).and_then(|source| source.text.get(bytes)).unwrap_or_default();
        let before = written.find(piece).and_then(|at| written.get(..at)).unwrap_or_default();
        let last = before.rsplit('\n').next().unwrap_or_default().chars().count();
        match before.matches('\n').count() {
            0 => Place { column: scalar.column + last, ..scalar },
            lines => Place { line: scalar.line + lines, column: last + 1, ..scalar },
        }
    }

    /// What follows a key and its colon on its line.
    pub fn text_after(&self, key: Place, bytes: &Range<usize>) -> &str {
        let text = self.files.get(key.file.0).map(|source| source.text.as_str()).unwrap_or_default();
        let rest = text.get(bytes.end..).unwrap_or_default();
        rest.lines().next().unwrap_or_default().trim_start_matches([':', ' ', '"', '\''])
    }

    /// `line 7`, or `resources.yml line 7` seen from another file.
    pub fn describe(&self, place: Place, seen_from: Place) -> String {
        match self.files.get(place.file.0) {
            Some(source) if place.file != seen_from.file => format!("{} line {}", source.path.display(), place.line),
            _ => format!("line {}", place.line),
        }
    }

    pub fn into_result(self) -> Result<(), ConfigError> {
        let Self { files, findings, whole } = self;
        let shown = findings.into_iter().filter_map(|finding| {
            let source = files.get(finding.place.file.0)?;
            let covered = source.secrets.iter().filter(|secret| !secret.shown_as_written);
            let covered: Vec<_> = covered.map(|secret| secret.bytes.clone()).collect();
            Some(Diagnostic {
                file: source.path.clone(),
                line: Some(finding.place.line),
                column: Some(finding.place.column),
                message: finding.message,
                help: finding.help,
                snippet: snippet::cut(&source.text, &covered, finding.place.line, finding.place.column),
            })
        });
        let mut diagnostics: Vec<_> = whole.into_iter().chain(shown).collect();
        diagnostics.sort();
        diagnostics.dedup();
        if diagnostics.is_empty() { Ok(()) } else { Err(ConfigError { diagnostics }) }
    }
}
