//! What the role of a running instance must be allowed; a test compares it with the statements.

/// A privilege on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Privilege {
    Delete,
    Insert,
    Select,
    Update,
}

use Privilege::{Delete, Insert, Select, Update};

impl Privilege {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Insert => "INSERT",
            Self::Select => "SELECT",
            Self::Update => "UPDATE",
        }
    }
}

/// Per table of ours, what `run` does to it. `FOR UPDATE` needs UPDATE; so does `ON CONFLICT DO UPDATE`.
pub(super) const TABLES: &[(&str, &[Privilege])] = &[
    ("adapter_state", &[Insert, Select, Update]),
    ("attempt", &[Delete, Insert, Select, Update]),
    ("audit", &[Insert, Select, Update]),
    ("conflict", &[Delete, Insert, Select, Update]),
    ("decision", &[Delete, Insert, Select, Update]),
    ("due", &[Delete, Insert, Select, Update]),
    ("home", &[Select, Update]),
    ("home_witness", &[Select]),
    ("ibisstore", &[Delete, Insert, Select, Update]),
    ("inbox", &[Delete, Insert, Select]),
    ("instance", &[Delete, Insert, Select, Update]),
    ("journal", &[Delete, Insert, Select, Update]),
    ("lineage", &[Delete, Insert, Select]),
    ("payload", &[Delete, Insert, Select]),
    ("schema_history", &[Select]),
    ("unsettled", &[Delete, Insert, Select]),
];

/// The first three tell whether the home has moved; the fourth ends another instance's sessions; the last two are ours.
pub(super) const FUNCTIONS: &[&str] = &[
    "pg_control_system",
    "pg_walfile_name",
    "pg_current_wal_lsn",
    "pg_terminate_backend",
    "posthaste.take",
    "posthaste.take_all",
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;

    /// The tables that statements of `src/store` write, and how; those of `migrate` left out.
    fn written() -> BTreeMap<String, BTreeSet<Privilege>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
        let mut found: BTreeMap<String, BTreeSet<Privilege>> = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if ["migrate.rs", "home.rs", "privileges.rs"].contains(&name.as_str()) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let between = |c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_';
            let words: Vec<&str> = text.split(between).filter(|word| !word.is_empty()).collect();
            for three in words.windows(3) {
                let (privilege, table) = match three {
                    ["INSERT", "INTO", table] => (Insert, table),
                    ["DELETE", "FROM", table] => (Delete, table),
                    ["UPDATE", table, _] => (Update, table),
                    _ => continue,
                };
                let own = table.strip_prefix("posthaste.").or((*table == "ibisstore").then_some(table));
                if let Some(own) = own {
                    found.entry(own.to_owned()).or_default().insert(privilege);
                }
            }
        }
        found
    }

    #[test]
    fn every_privilege_that_a_statement_needs_is_asked_for_and_few_others() {
        let written = written();
        assert!(written.len() > 10, "{written:?}");
        let asked: BTreeMap<&str, BTreeSet<Privilege>> =
            TABLES.iter().map(|(table, needs)| (*table, needs.iter().copied().collect())).collect();
        for (table, needs) in &written {
            assert!(asked[table.as_str()].is_superset(needs), "{table}: {needs:?}");
        }
        // Not plain writes: rows are locked, or updated on conflict.
        let otherwise = [("adapter_state", Update), ("conflict", Update), ("ibisstore", Update)];
        for (table, needs) in asked {
            let more = needs.into_iter().filter(|need| *need != Select);
            let more = more.filter(|need| !written.get(table).is_some_and(|written| written.contains(need)));
            for need in more {
                assert!(otherwise.contains(&(table, need)), "{table}: nothing needs {need:?}");
            }
        }
    }
}
