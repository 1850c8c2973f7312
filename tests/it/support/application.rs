//! The repository's applications, as the tests install them.

/// What an installation does with its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Application {
    /// Writes each text into two tables of one database.
    #[default]
    WriteDb,
    /// Moves money between two ledgers in two databases, and keeps the history in a third.
    TwoDatabases,
}

impl Application {
    /// In the repository.
    pub fn folder(self) -> &'static str {
        match self {
            Self::WriteDb => "configurations/write-db",
            Self::TwoDatabases => "examples/two-databases/configurations/transfers",
        }
    }

    /// Names of its `postgres` entries, the home first.
    pub fn databases(self) -> &'static [&'static str] {
        match self {
            Self::WriteDb => &["main"],
            Self::TwoDatabases => &["main", "ledgerA", "ledgerB"],
        }
    }

    /// Where it is posted to.
    pub fn path(self) -> &'static str {
        match self {
            Self::WriteDb => "/api/write",
            Self::TwoDatabases => "/api/transfer",
        }
    }

    pub fn queue(self) -> &'static str {
        match self {
            Self::WriteDb => "myQueue",
            Self::TwoDatabases => "transfers",
        }
    }

    pub fn log_slot(self) -> &'static str {
        match self {
            Self::WriteDb => "write-db-req",
            Self::TwoDatabases => "transfer-req",
        }
    }

    pub fn error_slot(self) -> &'static str {
        match self {
            Self::WriteDb => "write-db",
            Self::TwoDatabases => "transfer",
        }
    }
}
