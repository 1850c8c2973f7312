//! Whether a session is one: a connection pooler may hand each transaction to another server process, and drop start-up
//! options. Asked in words without parameters, which every pooler lets through.

use std::time::Duration;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::error::no_session;
use super::opening::session_config;
use super::pool::session_settings;
use super::{PostgresSettings, SessionTimeouts, StoreError};

/// Between a pooler's answers others may have its sessions, and one look may find all as it was by luck.
const LOOKS: usize = 4;
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(3);
/// A pooler's "unsupported startup parameter"; PostgreSQL itself takes these.
const PROTOCOL_VIOLATION: &str = "08P01";

const ADVICE: &str = "a connection pooler stands between, and Posthaste needs sessions of its own, for their settings, \
                      locks and prepared statements: connect to PostgreSQL directly";

/// What a session sees of itself: the mark that was set in it, if any, and its server process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    mark: Option<String>,
    backend: String,
}

/// Why the sessions of this entry are none, or nothing.
///
/// # Errors
/// It did not answer.
pub async fn no_sessions(settings: &PostgresSettings) -> Result<Option<String>, StoreError> {
    let (one, two, three) = tokio::try_join!(connect(settings), connect(settings), connect(settings))?;
    let (one, two, three) = match (one, two, three) {
        (Ok(one), Ok(two), Ok(three)) => (one, two, three),
        (Err(reason), ..) | (_, Err(reason), _) | (.., Err(reason)) => return Ok(Some(reason)),
    };
    let (one, two, three) = (&one, &two, &three);
    let lost = lost_settings(one, settings.role.as_deref()).await?;
    if !lost.is_empty() {
        return Ok(Some(format!("sessions do not have what they ask for ({}): {ADVICE}", lost.join(", "))));
    }
    for look in 0..LOOKS {
        let mark = format!("{:x}-{look}", std::process::id());
        let set =
            format!("SELECT pg_catalog.set_config('posthaste.mark', '{mark}', false), pg_catalog.pg_backend_pid()");
        let before = seen(one, &set).await?;
        // Open until the first has looked again, so that it cannot have their server processes.
        let beside = [seen(two, &format!("BEGIN; {SEE}")).await?, seen(three, &format!("BEGIN; {SEE}")).await?];
        let after = seen(one, SEE).await?;
        if let Some(reason) = judge(&before, &beside, &after) {
            return Ok(Some(format!("{reason}: {ADVICE}")));
        }
        for client in [two, three] {
            ask(client, "ROLLBACK").await?;
        }
    }
    Ok(None)
}

const SEE: &str = "SELECT pg_catalog.current_setting('posthaste.mark', true), pg_catalog.pg_backend_pid()";

fn judge(before: &Seen, beside: &[Seen], after: &Seen) -> Option<String> {
    if beside.iter().any(|other| other.backend == before.backend || other.mark == before.mark) {
        return Some("two sessions are in the same server process".to_owned());
    }
    if after.backend != before.backend {
        return Some("a session goes on in another server process after each transaction".to_owned());
    }
    (after.mark != before.mark).then(|| "a session loses its settings after each transaction".to_owned())
}

/// A client, or why nobody can be one.
async fn connect(settings: &PostgresSettings) -> Result<Result<Client, String>, StoreError> {
    let mut config = session_config(settings, SessionTimeouts::default())?;
    config.application_name("posthaste:sessions");
    // What is asked means what we mean, whatever others have put into the application's search path.
    let given = config.get_options().unwrap_or_default().to_owned();
    config.options(format!("{given} -c search_path=pg_catalog,pg_temp"));
    match config.connect(NoTls).await {
        Ok((client, connection)) => {
            #[expect(clippy::disallowed_methods, reason = "ends with the client, when the questions are answered")]
            tokio::spawn(connection);
            Ok(Ok(client))
        }
        Err(error) => match error.as_db_error() {
            Some(db) if db.code().code() == PROTOCOL_VIOLATION => Ok(Err(format!("{}: {ADVICE}", db.message()))),
            Some(_) | None => Err(StoreError::Unreachable(settings.advice(&no_session(&error)))),
        },
    }
}

/// As `pg_settings` has them: a setting's own text has units.
async fn lost_settings(client: &Client, role: Option<&str>) -> Result<Vec<String>, StoreError> {
    let mut wanted = session_settings(SessionTimeouts::default()).to_vec();
    let names: Vec<String> = wanted.iter().map(|(name, _)| format!("'{name}'")).collect();
    wanted.extend(role.map(|role| ("role", role.to_owned())));
    let sql = format!(
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ({}) UNION ALL SELECT 'role', current_user",
        names.join(", ")
    );
    let found = ask(client, &sql).await?;
    let value = |name: &str| found.iter().find(|row| row.first() == Some(&Some(name.to_owned())))?.get(1)?.as_deref();
    let lost = wanted.iter().filter(|(name, wanted)| value(name) != Some(wanted));
    Ok(lost.map(|(name, wanted)| format!("{name} is {}, not {wanted}", value(name).unwrap_or("unknown"))).collect())
}

async fn seen(client: &Client, sql: &str) -> Result<Seen, StoreError> {
    match ask(client, sql).await?.into_iter().next().as_deref() {
        Some([mark, Some(backend)]) => {
            Ok(Seen { mark: mark.clone().filter(|mark| !mark.is_empty()), backend: backend.clone() })
        }
        Some(_) | None => Err(StoreError::Unexpected("no server process told its number".to_owned())),
    }
}

/// The rows of an answer.
async fn ask(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, StoreError> {
    let late = |_elapsed| StoreError::Unreachable(format!("no answer within {ANSWER:?} while other sessions are open"));
    let messages = tokio::time::timeout(ANSWER, client.simple_query(sql)).await.map_err(late)??;
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    };
    Ok(messages.iter().filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::{Seen, judge};

    fn seen(mark: &str, backend: &str) -> Seen {
        Seen { mark: (!mark.is_empty()).then(|| mark.to_owned()), backend: backend.to_owned() }
    }

    #[test]
    fn a_session_is_one_when_it_keeps_its_process_and_its_settings_and_shares_neither() {
        let (before, beside) = (seen("m", "1"), [seen("", "2"), seen("", "3")]);
        assert_eq!(judge(&before, &beside, &before), None);
        for (beside, after) in [
            ([seen("m", "1"), seen("", "3")], seen("", "2")),
            ([seen("", "2"), seen("", "1")], before.clone()),
            ([seen("", "2"), seen("", "3")], seen("m", "4")),
            ([seen("", "2"), seen("", "3")], seen("", "1")),
        ] {
            assert!(judge(&before, &beside, &after).is_some(), "{beside:?} {after:?}");
        }
    }
}
