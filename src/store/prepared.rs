//! Whether a server lets transactions be prepared: `max_prepared_transactions` is 0 unless somebody has set it.

use super::PostgresSettings;
use super::migrate::{MigrateError, connect};

/// What one server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedLimit {
    /// Databases of one server share its limit.
    pub system_identifier: String,
    /// Entries with the same server and database are one participant.
    pub database: String,
    /// `max_prepared_transactions`.
    pub limit: usize,
}

const LIMIT: &str = "/* prepared_limit */
SELECT (pg_control_system()).system_identifier::text, current_database()::text,
       current_setting('max_prepared_transactions')::int";

/// Asks the server of one entry.
pub async fn prepared_limit(settings: &PostgresSettings) -> Result<PreparedLimit, MigrateError> {
    let client = connect(settings).await?;
    let row = client.query_one(LIMIT, &[]).await?;
    let limit = usize::try_from(row.get::<_, i32>(2)).unwrap_or(0);
    Ok(PreparedLimit { system_identifier: row.get(0), database: row.get(1), limit })
}

impl PreparedLimit {
    fn same_database(&self, other: &Self) -> bool {
        self.system_identifier == other.system_identifier && self.database == other.database
    }
}

/// Why an instance must not start with these limits, or nothing. Each entry comes with what its server said; what is
/// written to an entry that leads to the home's own database is part of the home's transaction.
#[must_use]
pub fn refuse_small_limits(home: &str, entries: &[(&PostgresSettings, PreparedLimit)]) -> Option<String> {
    let home = entries.iter().find(|(entry, _)| entry.name == home).map(|(_, server)| server);
    let branches: Vec<_> = entries
        .iter()
        .filter(|(entry, server)| entry.branches > 0 && !home.is_some_and(|home| home.same_database(server)))
        .collect();
    for (entry, server) in &branches {
        let same = branches.iter().filter(|(_, other)| other.system_identifier == server.system_identifier);
        let needed: usize = same.clone().map(|(entry, _)| entry.branches).sum();
        if needed > server.limit {
            let names: Vec<&str> = same.map(|(entry, _)| entry.name.as_str()).collect();
            return Some(format!(
                "the server of postgres entry {} ({}) allows {} prepared transactions, and this configuration may have \
                 {needed} at once in {}: set max_prepared_transactions = {needed} or more in its postgresql.conf \
                 (so much for each instance that runs beside this one) and restart that server",
                entry.name,
                entry.address(),
                server.limit,
                names.join(" and "),
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, branches: usize) -> PostgresSettings {
        PostgresSettings {
            name: name.to_owned(),
            url: format!("postgres://localhost/{name}").into(),
            username: None,
            password: None,
            role: None,
            pool_max_size: 16,
            branches,
        }
    }

    fn on(server: &str, database: &str, limit: usize) -> PreparedLimit {
        PreparedLimit { system_identifier: server.to_owned(), database: database.to_owned(), limit }
    }

    #[test]
    fn databases_of_one_server_share_its_limit() {
        let (home, a, b) = (entry("main", 0), entry("a", 8), entry("b", 8));
        let apart = [(&home, on("1", "main", 0)), (&a, on("2", "a", 8)), (&b, on("3", "b", 8))];
        assert_eq!(refuse_small_limits("main", &apart), None);
        let together = [(&home, on("1", "main", 0)), (&a, on("2", "a", 15)), (&b, on("2", "b", 15))];
        let said = refuse_small_limits("main", &together).unwrap();
        assert!(said.contains("max_prepared_transactions = 16") && said.contains("a and b"), "{said}");
    }

    #[test]
    fn a_home_needs_no_prepared_transactions_under_whatever_name() {
        assert_eq!(refuse_small_limits("main", &[(&entry("main", 0), on("1", "main", 0))]), None);
        let alias = [(&entry("main", 0), on("1", "main", 0)), (&entry("again", 8), on("1", "main", 0))];
        assert_eq!(refuse_small_limits("main", &alias), None);
    }
}
