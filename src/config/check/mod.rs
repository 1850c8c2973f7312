//! What no value can show alone: names that must exist or be unique, and rules between keys.

mod adapters;
mod receivers;
mod resources;

use std::collections::BTreeMap;

use super::diagnostic::Report;
use super::folders::Folder;
use super::resources::Resources;
use super::section::Text;
use super::values::did_you_mean;

/// Checks everything against everything. Without resources.yml (it was no YAML) what refers to it is left unchecked.
pub(super) fn all(resources: Option<&Resources>, folders: &[Folder], report: &mut Report) {
    if let Some(resources) = resources {
        self::resources::check(resources, report);
        self::resources::check_migrations(resources, folders, report);
        self::receivers::check_threads(resources, folders, report);
        self::receivers::check_branches(resources, folders, report);
        self::receivers::check_bodies(resources, folders, report);
    }
    self::adapters::check(resources, folders, report);
    self::receivers::check(resources, folders, report);
}

/// Reports a text that another place has already; `what` completes "… is taken by".
fn check_unique<'a>(texts: impl Iterator<Item = &'a Text>, what: &str, help: &str, report: &mut Report) {
    let mut seen: BTreeMap<&str, &Text> = BTreeMap::new();
    for text in texts.filter(|text| !text.is_absent()) {
        if let Some(first) = seen.get(text.value.as_str()) {
            let first = report.describe(first.at, text.at);
            report.error(text.at, format!("{what} `{}` exists already: {first}", text.shown()), help);
        } else {
            seen.insert(&text.value, text);
        }
    }
}

/// The help for a name that does not exist: the nearest one, or all that do.
fn help_for(unknown: &Text, names: &[&str], what: &str) -> String {
    let near = unknown.proposable().and_then(|text| did_you_mean(text, names.iter().copied()));
    near.unwrap_or_else(|| match names {
        [] => format!("there is no {what} yet: add one"),
        [only] => format!("the only {what} is `{only}`"),
        names => format!("there are {}", names.join(", ")),
    })
}

fn proposable<'a>(texts: impl Iterator<Item = &'a Text>) -> Vec<&'a str> {
    texts.filter_map(Text::proposable).collect()
}
