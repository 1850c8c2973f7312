//! The one way into the journal: who inserts rows names them in `unsettled`, in the same statement, and so whoever looks for
//! open rows finds them (protocol §2, I9).

/// Common table expressions that insert journal rows and name what they have inserted. `each`: an entry for each row, which
/// costs least where there is one; `last`: the same, as the end of a statement that answers how many rows it has inserted,
/// which costs less; `together`: one for all rows of the statement. `$select`: the columns' values and where they come from.
/// Whoever reads `job` reads the ids of the inserted rows.
macro_rules! journal_rows {
    (each, $columns:literal, $select:literal) => {
        concat!(
            journal_rows!(insert, $columns, $select),
            ",\nnamed AS (INSERT INTO posthaste.unsettled (tx_id) SELECT tx_id FROM job)"
        )
    };
    (last, $columns:literal, $select:literal) => {
        concat!(
            journal_rows!(insert, $columns, $select),
            "\nINSERT INTO posthaste.unsettled (tx_id) SELECT tx_id FROM job"
        )
    };
    (together, $columns:literal, $select:literal) => {
        concat!(
            journal_rows!(insert, $columns, $select),
            ",\nnamed AS (\n    INSERT INTO posthaste.unsettled (tx_id, others)\n",
            "    SELECT ids[1], CASE WHEN cardinality(ids) > 1 THEN ids[2:] END\n",
            "    FROM (SELECT array_agg(tx_id) AS ids FROM job) inserted WHERE ids IS NOT NULL)"
        )
    };
    (insert, $columns:literal, $select:literal) => {
        concat!("job AS (\n    INSERT INTO posthaste.journal (", $columns, ")\n    ", $select, "\n    RETURNING tx_id)")
    };
}

pub(super) use journal_rows;

/// What a step of a pipeline sends, among an application's statements: all is named with its schema, and `unnest` of several
/// is PostgreSQL's own by its grammar (ADR 23).
pub(super) const OUTGOING: &str = concat!(
    "/* add_outgoing */
WITH sent AS (
    SELECT * FROM unnest($1::pg_catalog.uuid[], $2::pg_catalog.text[], $3::pg_catalog.text[], $4::integer[])
                  s(tx_id, mode, destination, max_attempts)),
body AS (
    INSERT INTO posthaste.payload (tx_id, message_id, correlation_id, content_type, headers, message)
    SELECT sent.tx_id, $5, $6, $7, $8, $9 FROM sent),
kin AS (
    INSERT INTO posthaste.lineage (root_id, tx_id, parent_id, cause) SELECT $10, sent.tx_id, $11, 'OUTGOING' FROM sent
    WHERE sent.tx_id OPERATOR(pg_catalog.<>) $10),
",
    journal_rows!(
        last,
        "tx_id, root_id, sha256, mode, destination, max_attempts, owner, publish_after",
        "SELECT sent.tx_id, $10, $12, sent.mode, sent.destination, sent.max_attempts, $13,
           pg_catalog.clock_timestamp()
               OPERATOR(pg_catalog.+) ($14::double precision OPERATOR(pg_catalog.*) interval '1 second')
    FROM sent"
    )
);

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Files below a folder that hold these words, once for each time.
    fn holding(folder: &Path, wanted: [&str; 2], found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                holding(&path, wanted, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
            // Never whole in this file, which would find itself.
            let times = words.matches(&wanted.join(".")).count();
            found.extend(vec![path.file_name().unwrap().to_string_lossy().into_owned(); times]);
        }
    }

    #[test]
    fn nobody_goes_into_the_journal_another_way() {
        let (root, mut found) = (Path::new(env!("CARGO_MANIFEST_DIR")), Vec::new());
        for folder in ["src", "migrations"] {
            holding(&root.join(folder), ["INTO POSTHASTE", "JOURNAL"], &mut found);
        }
        assert_eq!(found, ["entry.rs"]);
    }

    /// Each of these settles the row in the same statement, or has seen it settled or gone (I9). Whoever adds another must do
    /// so, too.
    #[test]
    fn nobody_else_takes_a_row_out_of_due() {
        let mut found = Vec::new();
        holding(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), ["DELETE FROM POSTHASTE", "DUE"], &mut found);
        found.sort();
        assert_eq!(found, ["cleanup.rs", "give_up.rs", "home.rs", "mark.rs", "sweep.rs", "work.rs"]);
    }

    #[test]
    fn who_inserts_names_what_was_inserted_and_nothing_else() {
        let each = journal_rows!(each, "tx_id, mode", "SELECT 1, 2");
        assert!(each.contains("(tx_id, mode)\n    SELECT 1, 2\n    RETURNING tx_id)"), "{each}");
        let (last, together) =
            (journal_rows!(last, "tx_id, mode", "SELECT 1, 2"), journal_rows!(together, "tx_id, mode", "SELECT 1, 2"));
        for sql in [each, last, together] {
            assert!(sql.contains("INSERT INTO posthaste.unsettled") && sql.contains("FROM job"), "{sql}");
        }
    }
}
