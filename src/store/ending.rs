//! Ending other sessions of ours, which may have another user's name than this one.

use deadpool_postgres::ClientWrapper;

use super::StoreError;

/// PostgreSQL asks for the rights of those sessions' *user*, whatever role they are in. The user of this session has them
/// when it is the same one; the role in force need not, nor may it end anybody.
const AS_USER: &str = "/* end_as_user */
SELECT pg_catalog.set_config('role', 'none', true)
FROM (SELECT pg_catalog.bool_and(pg_catalog.pg_has_role(session_user, usesysid, 'USAGE')
                                 OR pg_catalog.pg_has_role(session_user, 'pg_signal_backend', 'USAGE')) AS may
      FROM pg_catalog.pg_stat_activity WHERE pid = ANY($1)) those
WHERE may";
const END: &str = "/* end_sessions */
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE pid = ANY($1) AND application_name = $2";

/// Ends those of these server processes that still have this name; in a transaction, for the role is another until its end.
pub(super) async fn end_sessions(client: &ClientWrapper, pids: &[i32], name: &str) -> Result<usize, StoreError> {
    client.query(AS_USER, &[&pids]).await?;
    Ok(client.query(END, &[&pids, &name]).await?.len())
}
