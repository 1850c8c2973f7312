//! Where a home lives, and what it means when it lives elsewhere than before (protocol §5). Pure, but for the SQL.

/// What is compared, in the order of [`KNOWN`] and [`FOUND`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    System,
    Timeline,
    DatabaseOid,
    DatabaseName,
    TableOid,
    InsertedBy,
}

const FACTS: [Fact; 6] =
    [Fact::System, Fact::Timeline, Fact::DatabaseOid, Fact::DatabaseName, Fact::TableOid, Fact::InsertedBy];

/// As the home has them written down; of `posthaste.home h` and `posthaste.home_witness w`.
pub(super) const KNOWN: &str = "ARRAY[h.system_identifier, h.timeline::text, h.database_oid::text, h.database_name,
    h.table_oid::text, w.inserted_by::text]";

/// As the server shows them now.
pub(super) const FOUND: &str = "ARRAY[(pg_control_system()).system_identifier::text,
    ('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint::text,
    (SELECT oid::text FROM pg_database WHERE datname = current_database()), current_database()::text,
    h.tableoid::text, w.xmin::text]";

/// A row that somebody removed is a fact that differs, too.
pub(super) const OF_HOME: &str = "posthaste.home h LEFT JOIN posthaste.home_witness w ON w.singleton";

/// A value of each fact; `None`: there is none.
pub(super) type Facts = Vec<Option<String>>;

/// What differs, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Where it lived, and where it is: of the facts that differ.
    pub known: String,
    pub found: String,
    /// What such a difference comes from.
    pub means: &'static str,
}

/// `None`: it lives where it lived.
pub(super) fn moved(known: &Facts, found: &Facts) -> Option<Moved> {
    let value = |facts: &Facts, at: usize| facts.get(at).cloned().flatten();
    // What is not there is like nothing, not even like what was not there before.
    let differs = |at: &usize| value(known, *at).is_none() || value(known, *at) != value(found, *at);
    let differing: Vec<usize> = (0..FACTS.len()).filter(differs).collect();
    let said = |facts: &Facts| {
        let words = differing.iter().filter_map(|at| Some(words(*FACTS.get(*at)?, value(facts, *at))));
        words.collect::<Vec<_>>().join(", ")
    };
    let facts: Vec<Fact> = differing.iter().filter_map(|at| FACTS.get(*at).copied()).collect();
    Some(Moved { known: said(known), found: said(found), means: meaning(&facts)? })
}

fn words(fact: Fact, value: Option<String>) -> String {
    let value = value.unwrap_or_else(|| "nowhere".to_owned());
    match fact {
        Fact::System => format!("system {value}"),
        Fact::Timeline => format!("timeline {value}"),
        Fact::DatabaseOid => format!("the database with OID {value}"),
        Fact::DatabaseName => format!("the database named {value}"),
        Fact::TableOid => format!("the table posthaste.home with OID {value}"),
        Fact::InsertedBy => format!("rows that transaction {value} inserted"),
    }
}

/// The difference that says most comes first. `None`: nothing differs.
fn meaning(differing: &[Fact]) -> Option<&'static str> {
    let has = |fact| differing.contains(&fact);
    if has(Fact::System) {
        return Some("another PostgreSQL cluster: a clone, a dump restored there, or an upgrade");
    }
    if has(Fact::DatabaseOid) {
        return Some(
            "another database of the same cluster, whatever its name: made by CREATE DATABASE … TEMPLATE, or restored \
             from a dump",
        );
    }
    if has(Fact::TableOid) || has(Fact::InsertedBy) {
        return Some("its tables or rows were made anew, as by pg_restore --clean: what they say may be old");
    }
    if has(Fact::Timeline) {
        return Some("a fail-over, or a restore to a point in time");
    }
    has(Fact::DatabaseName).then_some("the database was renamed, and nothing else: `--home same`, if you did that")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(values: [&str; 6]) -> Facts {
        values.map(|value| Some(value.to_owned())).into()
    }

    fn home() -> Facts {
        facts(["7001", "1", "16384", "main", "16400", "731"])
    }

    #[test]
    fn a_home_whose_facts_are_all_as_before_has_not_moved() {
        assert_eq!(moved(&home(), &home()), None);
    }

    #[test]
    fn each_fact_alone_tells_that_it_has_moved_and_only_it_is_named() {
        let cases = [
            (0, "system other", "another PostgreSQL cluster"),
            (1, "timeline other", "a fail-over"),
            (2, "the database with OID other", "TEMPLATE"),
            (3, "the database named other", "renamed"),
            (4, "the table posthaste.home with OID other", "pg_restore --clean"),
            (5, "rows that transaction other inserted", "pg_restore --clean"),
        ];
        for (at, said, means) in cases {
            let mut found = home();
            found[at] = Some("other".to_owned());
            let moved = moved(&home(), &found).unwrap();
            assert_eq!(moved.found, said);
            assert!(!moved.known.contains(','), "{moved:?}");
            assert!(moved.means.contains(means), "{moved:?}");
        }
    }

    #[test]
    fn a_witness_that_somebody_removed_tells_that_it_has_moved() {
        let mut gone = home();
        gone[5] = None;
        let moved = moved(&gone, &gone).unwrap();
        assert_eq!(moved.known, "rows that transaction nowhere inserted");
    }

    #[test]
    fn a_dump_restored_under_the_old_name_is_told_by_its_oids() {
        let found = facts(["7001", "1", "16999", "main", "17005", "801"]);
        let moved = moved(&home(), &found).unwrap();
        assert!(moved.known.starts_with("the database with OID 16384, the table"), "{moved:?}");
        assert!(moved.means.starts_with("another database of the same cluster"), "{moved:?}");
    }
}
