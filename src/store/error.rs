//! What a failed call to PostgreSQL means for its caller.

use std::error::Error as _;

use tokio_postgres::error::{DbError, Severity};

use crate::model::text::cut;

/// Longest text of the server that is told, in characters: whoever writes a function there may raise megabytes.
const LONGEST: usize = 1000;

/// A failed call. `Display` is for people and never holds PostgreSQL's DETAIL, which quotes row values.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The statement was answered with an ERROR and the session lives: it did nothing.
    #[error("{message} (SQLSTATE {sqlstate})")]
    Refused {
        sqlstate: String,
        message: String,
        /// The constraint that refused it, if one did.
        constraint: Option<String>,
    },
    /// No connection could be had, so nothing was sent.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The connection was lost, or the answer did not come in time: what was sent may have been done.
    #[error("the database did not answer: {0}")]
    Unknown(String),
    /// The database answered something that the schema or this program rules out.
    #[error("unexpected answer of the database: {0}")]
    Unexpected(String),
}

impl StoreError {
    /// The SQLSTATE, when the statement was refused.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Refused { sqlstate, .. } => Some(sqlstate),
            Self::Unreachable(_) | Self::Unknown(_) | Self::Unexpected(_) => None,
        }
    }

    /// For whoever may not see what the installation is like inside: nothing that the server has said, which names roles,
    /// tables and whatever its functions raise.
    #[must_use]
    pub fn public(&self) -> String {
        match self {
            Self::Refused { sqlstate, .. } => format!("the database refused it (SQLSTATE {sqlstate})"),
            Self::Unreachable(_) => "the database cannot be reached".to_owned(),
            Self::Unknown(_) => "the database did not answer".to_owned(),
            Self::Unexpected(_) => "the database gave an unexpected answer".to_owned(),
        }
    }

    /// Whether the database or the way to it is at fault, not the message (protocol §7: classes 53, 57, 58, XX, 08;
    /// 57014, a statement's time-out, is the message's own), or a server that takes no writes (25006: a standby).
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        match self {
            Self::Refused { sqlstate, .. } => {
                let class = sqlstate.get(..2).unwrap_or_default();
                (matches!(class, "53" | "57" | "58" | "XX" | "08") && sqlstate != "57014") || sqlstate == "25006"
            }
            Self::Unreachable(_) | Self::Unknown(_) => true,
            Self::Unexpected(_) => false,
        }
    }
}

impl StoreError {
    /// Whether other messages would have been answered so, too: all that does not speak of the data, of what a function raises,
    /// or of others that were in the way.
    #[must_use]
    pub fn concerns_every_message(&self) -> bool {
        match self {
            Self::Refused { sqlstate, .. } => {
                let class = sqlstate.get(..2).unwrap_or_default();
                !matches!(class, "22" | "23" | "40" | "44" | "54" | "P0")
                    && !matches!(sqlstate.as_str(), "55P03" | "57014")
            }
            Self::Unreachable(_) | Self::Unknown(_) | Self::Unexpected(_) => true,
        }
    }
}

impl StoreError {
    /// Whether a plan that the session has kept may be to blame, for a table that is not what it was, and not what was
    /// asked: another result (0A000), other types of columns and parameters (42804, 42883, 42P18), or a statement that is
    /// gone (26000). A step may raise any of these itself: what fails in a new session is no plan's fault.
    #[must_use]
    pub fn may_be_stale_plan(&self) -> bool {
        matches!(self.sqlstate(), Some("0A000" | "26000" | "42804" | "42883" | "42P18"))
    }

    /// Whether what was given does not fit its type, which may have been another one when the plan was made.
    #[must_use]
    pub fn blames_a_value(&self) -> bool {
        self.sqlstate().is_some_and(|sqlstate| sqlstate.starts_with("22"))
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) if is_plain_error(db) => Self::Refused {
                sqlstate: db.code().code().to_owned(),
                message: cut(&without_values(db.code().code(), db.message()), LONGEST),
                constraint: db.constraint().map(str::to_owned),
            },
            Some(db) => Self::Unknown(ended(db)),
            None if is_local(&error) => {
                Self::Refused { sqlstate: "22023".to_owned(), message: cause(&error), constraint: None }
            }
            None => Self::Unknown(chain(&error)),
        }
    }
}

/// Why no session could be had: a server that says so has answered.
pub(super) fn no_session(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => ended(db),
        None => chain(error),
    }
}

impl From<crate::txn::faults::Injected> for StoreError {
    fn from(injected: crate::txn::faults::Injected) -> Self {
        Self::Unknown(injected.to_string())
    }
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        use deadpool_postgres::PoolError;
        match error {
            PoolError::Timeout(kind) => Self::Unreachable(format!("no connection in time ({kind:?})")),
            PoolError::Backend(error) => Self::Unreachable(no_session(&error)),
            PoolError::Closed => Self::Unreachable("the pool is closed".to_owned()),
            PoolError::NoRuntimeSpecified => Self::Unreachable("the pool has no runtime".to_owned()),
            PoolError::PostCreateHook(error) => Self::Unreachable(error.to_string()),
        }
    }
}

/// What a session says that ends.
fn ended(db: &DbError) -> String {
    format!("{} (SQLSTATE {})", cut(db.message(), LONGEST), db.code().code())
}

/// Data errors (class 22) quote the value that was refused: a payload has no business in a log.
fn without_values(sqlstate: &str, message: &str) -> String {
    match (sqlstate.starts_with("22"), message.split_once('"'), message.rsplit_once('"')) {
        (true, Some((before, _)), Some((_, after))) => format!("{before}\"…\"{after}"),
        (true | false, _, _) => message.to_owned(),
    }
}

/// ERROR leaves the session alive; FATAL and PANIC end it, possibly inside COMMIT.
fn is_plain_error(db: &DbError) -> bool {
    match db.parsed_severity() {
        Some(Severity::Error) => true,
        Some(Severity::Fatal | Severity::Panic) => false,
        Some(Severity::Warning | Severity::Notice | Severity::Debug | Severity::Info | Severity::Log) => false,
        None => db.severity() == "ERROR",
    }
}

/// A parameter that could not be encoded never left this process.
fn is_local(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|source| source.is::<super::params::BadParameter>())
}

/// The innermost cause alone.
fn cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => cause(source),
        None => error.to_string(),
    }
}

/// The error with its causes: `Display` of the client hides them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{StoreError, without_values};

    #[test]
    fn a_data_error_does_not_quote_the_value() {
        for (given, told) in [
            ("invalid input syntax for type integer: \"secret\"", "invalid input syntax for type integer: \"…\""),
            ("invalid input syntax for type integer: \"a \"b\" c\"", "invalid input syntax for type integer: \"…\""),
            ("value \"99999999999\" is out of range for type integer", "value \"…\" is out of range for type integer"),
            ("value too long for type character varying(30)", "value too long for type character varying(30)"),
            ("one \" alone", "one \"…\" alone"),
        ] {
            assert_eq!(without_values("22P02", given), told);
        }
    }

    #[test]
    fn what_is_public_holds_no_word_of_the_server() {
        let words = || "permission denied for role x".to_owned();
        let refused = StoreError::Refused { sqlstate: "42501".to_owned(), message: words(), constraint: None };
        assert_eq!(refused.public(), "the database refused it (SQLSTATE 42501)");
        for error in [StoreError::Unreachable(words()), StoreError::Unknown(words()), StoreError::Unexpected(words())] {
            assert!(!error.public().contains("role") && error.to_string().contains("role"), "{error}");
        }
    }

    #[test]
    fn a_server_that_takes_no_writes_is_nobodys_message_s_fault() {
        let refused = |sqlstate: &str| StoreError::Refused {
            sqlstate: sqlstate.to_owned(),
            message: String::new(),
            constraint: None,
        };
        assert!(refused("25006").is_infrastructure() && refused("53100").is_infrastructure());
        assert!(!refused("23505").is_infrastructure() && !refused("57014").is_infrastructure());
    }

    #[test]
    fn what_a_server_lacks_or_forbids_concerns_every_message_and_what_it_says_of_one_does_not() {
        let refused = |sqlstate: &str| StoreError::Refused {
            sqlstate: sqlstate.to_owned(),
            message: String::new(),
            constraint: None,
        };
        for sqlstate in ["53100", "53300", "25006", "42501", "42P01", "28000", "XX001"] {
            assert!(refused(sqlstate).concerns_every_message(), "{sqlstate}");
        }
        for sqlstate in ["22021", "23514", "40001", "55P03", "57014", "54000", "P0001"] {
            assert!(!refused(sqlstate).concerns_every_message(), "{sqlstate}");
        }
        assert!(StoreError::Unreachable(String::new()).concerns_every_message());
    }

    #[test]
    fn other_errors_keep_the_names_that_they_quote() {
        let unique = "duplicate key value violates unique constraint \"once_body_key\"";
        assert_eq!(without_values("23505", unique), unique);
    }
}
