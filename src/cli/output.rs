//! Writing to standard output, also into a pipe that somebody closes: tables for people, JSON for programs. Whatever text it
//! is, it does not steer the terminal.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::{Exit, Failure, Global, OutputFormat};
use crate::model::text;

/// How long a process that has other things to do waits for whoever reads what it prints.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Prints lines; a closed pipe is the reader's decision, not an error.
pub fn print(lines: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text::lines(lines).as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(Exit::Failed, format!("standard output: {error}"))),
    }
}

/// The same, beside what must go on though nobody reads it.
pub async fn print_aside(lines: String) -> Result<(), Failure> {
    let printed = tokio::task::spawn_blocking(move || print(&lines));
    match tokio::time::timeout(PATIENCE, printed).await {
        Ok(Ok(printed)) => printed,
        Ok(Err(panicked)) => Err(Failure::internal(panicked.to_string())),
        Err(_elapsed) => Ok(()),
    }
}

/// Tells a person something beside the result.
pub fn note(text: &str) {
    // Nothing is left to do when even this cannot be written.
    let _written = writeln!(std::io::stderr(), "posthaste: {text}").is_ok();
}

/// Prints a value as one indented JSON document.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let document =
        serde_json::to_string_pretty(value).map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    print(&format!("{}\n", text::json(&document)))
}

/// Prints a result as JSON, or as what `text` writes for people.
pub fn print_result(
    global: &Global,
    value: &impl Serialize,
    text: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), Failure> {
    match global.output {
        OutputFormat::Json => print_json(value),
        OutputFormat::Table => {
            let mut out = Vec::new();
            text(&mut out).map_err(|error| Failure::internal(error.to_string()))?;
            print(&String::from_utf8_lossy(&out))
        }
    }
}

/// Rows under headings, without lines or colours. As wide as the terminal; elsewhere nothing is wrapped.
pub fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings.iter().copied());
    table.set_content_arrangement(if std::io::stdout().is_terminal() {
        ContentArrangement::Dynamic
    } else {
        ContentArrangement::Disabled
    });
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.add_rows(rows);
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A member by name; JSON's null when there is none.
pub fn member<'a>(value: &'a Value, name: &str) -> &'a Value {
    const NOTHING: &Value = &Value::Null;
    value.get(name).unwrap_or(NOTHING)
}

/// A member for a table: text on one line, nothing as `-`.
pub fn cell(value: &Value, name: &str) -> String {
    match member(value, name) {
        Value::Null => "-".to_owned(),
        Value::String(text) => one_line(text),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    }
}

/// A moment to the second.
pub fn moment(value: &Value, name: &str) -> String {
    let Some(text) = member(value, name).as_str() else { return "-".to_owned() };
    match text.parse::<jiff::Timestamp>() {
        Ok(moment) => moment.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => one_line(text),
    }
}

/// Foreign text in a cell: breaks become blanks, whatever else could steer the terminal is escaped.
pub fn one_line(foreign: &str) -> String {
    text::one_line(&foreign.replace(['\n', '\r', '\t'], " ")).into_owned()
}

/// The elements of a list under a name; none when there is no such list.
pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    member(value, name).as_array().map(Vec::as_slice).unwrap_or_default()
}
