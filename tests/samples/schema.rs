//! Tables, columns, indexes and permitted words, as the migration makes them and as a document tells them.

use std::collections::BTreeMap;

use super::markdown::Document;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// In order.
    pub columns: Vec<String>,
    pub indexes: Vec<String>,
    /// Words that a column may hold, where a CHECK lists them.
    pub words: BTreeMap<String, Vec<String>>,
}

pub type Schema = BTreeMap<String, Table>;

/// Reads our own migrations: one column per line.
pub fn of_migration(sql: &str) -> Schema {
    let mut schema = Schema::new();
    let mut table: Option<String> = None;
    for line in sql.lines().map(|line| line.split("--").next().unwrap().trim()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), &table) {
            (["CREATE", "TABLE", name, "("], None) => {
                schema.insert((*name).to_owned(), Table::default());
                table = Some((*name).to_owned());
            }
            (["CREATE", "INDEX", index, "ON", name, ..], None)
            | (["CREATE", "UNIQUE", "INDEX", index, "ON", name, ..], None) => {
                schema.get_mut(*name).unwrap().indexes.push((*index).to_owned());
            }
            (["ALTER", "TABLE", name, "ADD", "COLUMN", column, ..], None) => {
                schema.get_mut(*name).unwrap().columns.push((*column).to_owned());
            }
            (["ALTER", "TABLE", name, "DROP", "COLUMN", column], None) => {
                let dropped = column.trim_end_matches(';');
                schema.get_mut(*name).unwrap().columns.retain(|column| column != dropped);
            }
            (["DROP", "INDEX", index], None) => {
                let dropped = index.trim_end_matches(';').rsplit('.').next().unwrap();
                schema.values_mut().for_each(|table| table.indexes.retain(|index| index != dropped));
            }
            ([first, ..], Some(_)) if first.starts_with(')') => table = None,
            ([first, ..], Some(name))
                if first.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()) =>
            {
                let table = schema.get_mut(name).unwrap();
                table.columns.push((*first).to_owned());
                if let Some((_, list)) = line.split_once(" IN (") {
                    let listed = list.split('\'').skip(1).step_by(2).map(str::to_owned).collect();
                    table.words.insert((*first).to_owned(), listed);
                }
            }
            _ => {}
        }
    }
    schema
}

/// Reads a document: a heading in back-ticks for each table, a row for each column, a list item for each index. Of the
/// words, those of `known` that its row names.
pub fn of_document(document: &Document, known: &Schema) -> Schema {
    let mut schema = Schema::new();
    let mut section: Option<String> = None;
    for (_, line) in document.prose() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).map(str::to_owned);
            schema.extend(section.clone().map(|name| (name, Table::default())));
        }
        let Some(table) = section.as_ref().and_then(|name| schema.get_mut(name)) else { continue };
        let name = section.as_deref().unwrap_or_default();
        if let Some((column, meaning)) = line.strip_prefix("| `").and_then(|rest| rest.split_once("` | ")) {
            table.columns.push(column.to_owned());
            if let Some(words) = known.get(name).and_then(|table| table.words.get(column)) {
                let named = words.iter().filter(|word| meaning.contains(&format!("`{word}`"))).cloned().collect();
                table.words.insert(column.to_owned(), named);
            }
        } else if let Some((index, _)) = line.strip_prefix("- `").and_then(|rest| rest.split_once("` (")) {
            table.indexes.push(index.to_owned());
        }
    }
    schema
}
