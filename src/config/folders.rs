//! `configurations/<name>/`: the folders, and their migrations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Configuration;
use super::adapters::{self, Adapter};
use super::section::Context;
use super::values;
use crate::store::migrate::{LONGEST_NAME, read_migration};

const FILE: &str = "adapters.yml";

/// One folder as it was read.
pub(super) struct Folder {
    pub path: PathBuf,
    pub configuration: Configuration,
    pub adapters: Vec<Adapter>,
}

/// Reads every configuration below a folder, in the order of their names.
pub(super) fn read_all(configurations: &Path, cx: &mut Context<'_>) -> Vec<Folder> {
    let children = match children(configurations) {
        Ok(children) => children,
        Err(error) => {
            let help = "it holds a folder with an adapters.yml for each configuration; another one is named by --configurations";
            cx.report.error_in(configurations, format!("the folder cannot be read: {error}"), help);
            return Vec::new();
        }
    };
    let folders: Vec<_> = children.into_iter().filter(|(_, path)| path.is_dir()).collect();
    if folders.is_empty() {
        let help = format!("write configurations/<name>/{FILE}; docs/configuration.md shows one");
        cx.report.error_in(configurations, "there is no configuration in it", help);
    }
    folders.into_iter().filter_map(|(name, path)| read_folder(name, path, cx)).collect()
}

fn read_folder(name: String, path: PathBuf, cx: &mut Context<'_>) -> Option<Folder> {
    if let Err(wrong) = values::name(&name) {
        cx.report.error_in(&path, format!("the folder's name must be {}", wrong.expected), wrong.help);
        return None;
    }
    let file = path.join(FILE);
    if !file.exists() {
        let near = ["adapters.yaml", "adapter.yml", "adapter.yaml", "Adapters.yml"]
            .iter()
            .find(|other| path.join(other).exists());
        let help = near.map_or_else(
            || format!("add one, or move the folder out of {}", path.parent().unwrap_or(&path).display()),
            |other| format!("rename {other} to {FILE}"),
        );
        cx.report.error_in(&path, format!("the configuration has no {FILE}"), help);
        return None;
    }
    let adapters = adapters::read(&file, &name, cx);
    let migrations = migrations(&path.join("migrations"), cx);
    if name.len() > LONGEST_NAME && migrations.values().any(|files| !files.is_empty()) {
        let help = "a table is named after it, which tells what is applied: rename the folder before anything is";
        cx.report.error_in(
            &path,
            format!("a configuration with migrations has a name of at most {LONGEST_NAME} bytes, not {}", name.len()),
            help,
        );
    }
    Some(Folder { path, configuration: Configuration { name, migrations }, adapters })
}

/// Per postgres entry its `V<n>__<what>.sql`, by number.
fn migrations(folder: &Path, cx: &mut Context<'_>) -> BTreeMap<String, Vec<PathBuf>> {
    let mut found = BTreeMap::new();
    if !folder.exists() {
        return found;
    }
    for (name, path) in listed(folder, cx) {
        if path.is_dir() {
            found.insert(name, numbered(&path, cx));
        } else {
            let help = "a migration stands in migrations/<postgres name>/";
            cx.report.error_in(&path, "this file stands beside the folders of the databases", help);
        }
    }
    found
}

fn numbered(folder: &Path, cx: &mut Context<'_>) -> Vec<PathBuf> {
    let mut by_number: BTreeMap<i32, (String, PathBuf)> = BTreeMap::new();
    for (name, path) in listed(folder, cx) {
        let number = match number_of(&name) {
            Ok(number) if path.is_file() => number,
            Ok(_) => {
                cx.report.error_in(&path, "this is no file", "a migration is one file of SQL");
                continue;
            }
            Err((message, help)) => {
                cx.report.error_in(&path, message, help);
                continue;
            }
        };
        if let Err(reason) = read_migration(&path) {
            cx.report.error_in(&path, reason, "save it as UTF-8 text");
        }
        if let Some((other, _)) = by_number.get(&number) {
            let help = "each number stands once; they are applied in its order";
            cx.report.error_in(&path, format!("migration {number} is also {other}"), help);
        } else {
            by_number.insert(number, (name, path));
        }
    }
    by_number.into_values().map(|(_, path)| path).collect()
}

/// The number, or what is wrong with the name and what to do.
fn number_of(name: &str) -> Result<i32, (String, &'static str)> {
    let form = "name it V<n>__<what>.sql: a whole number, two underscores, letters, digits and `_`";
    let no_name = || ("this is no name of a migration".to_owned(), form);
    let stem = name.strip_prefix('V').and_then(|name| name.strip_suffix(".sql")).ok_or_else(no_name)?;
    let (number, what) = stem.split_once("__").ok_or_else(no_name)?;
    let plain = !what.is_empty() && what.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let digits = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    if !plain || !digits {
        return Err(no_name());
    }
    match number.parse() {
        Ok(0) => Err(no_name()),
        Ok(number) => Ok(number),
        Err(_too_large) => Err((
            format!("the number {number} is too large: at most {}", i32::MAX),
            "count 1, 2, 3, or write a date: V20261129__what.sql",
        )),
    }
}

fn listed(folder: &Path, cx: &mut Context<'_>) -> Vec<(String, PathBuf)> {
    children(folder).unwrap_or_else(|error| {
        cx.report.error_in(folder, format!("the folder cannot be read: {error}"), "check who may read it");
        Vec::new()
    })
}

/// A folder's children by name; hidden ones are nobody's business.
fn children(folder: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            children.push((name, entry.path()));
        }
    }
    children.sort();
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_has_a_number_and_a_plain_name() {
        assert_eq!(number_of("V1__message_tables.sql"), Ok(1));
        assert_eq!(number_of("V0012__x.sql"), Ok(12));
        assert_eq!(number_of("V20261129__x.sql"), Ok(20_261_129));
        assert!(number_of("V20261129120000__x.sql").unwrap_err().0.contains("too large"));
        for name in [
            "V1_x.sql",
            "V__x.sql",
            "V1__.sql",
            "v1__x.sql",
            "V1__x.SQL",
            "V-1__x.sql",
            "V0__x.sql",
            "U1__x.sql",
            "V1__a b.sql",
            "V1__x.sql~",
        ] {
            assert!(number_of(name).is_err(), "{name}");
        }
    }
}
