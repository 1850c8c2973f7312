//! What the names in our statements mean, whatever others have created in the database (ADR 23). Our sessions look names up
//! in PostgreSQL's own schema alone; the application's search path is in force where its steps run, and what we say there
//! names the schema of everything. `ibisstore` lives where the application's tables do: it is found once, by its owner.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tokio_postgres::{Client, Row, SimpleQueryMessage};

/// Stands for `ibisstore` in our statements. It is no SQL: where the name was not put in its place, PostgreSQL refuses.
const PLACE: &str = ":ibisstore";

/// In force in all that we ask. Nobody but a superuser creates in the first; in the second are only tables and types, and
/// only this session's own.
macro_rules! own_path {
    () => {
        "SET search_path = pg_catalog, pg_temp"
    };
}
pub(super) const OWN_PATH: &str = own_path!();

/// Keeps the application's search path, and takes ours. For a role that is called like our schema, `"$user"` means that
/// schema: its tables would stand in the way of the application's, and `ibisstore` would be made there. No backslash: it means
/// another thing where standard_conforming_strings is off.
const OPEN: &str = concat!(
    "SELECT pg_catalog.set_config('posthaste.search_path', pg_catalog.current_setting('search_path'), false),
            pg_catalog.set_config('posthaste.schemas', pg_catalog.current_schemas(false)::pg_catalog.text, false); ",
    own_path!(),
    "; SELECT set_config('posthaste.search_path',
               coalesce(nullif(regexp_replace(current_setting('posthaste.search_path'), '.[$]user.([[:space:]]*,[[:space:]]*)?', ''), ''),
                        'public'),
               false)
       WHERE current_user = 'posthaste'"
);

/// The application's search path, until it is changed again.
pub(super) const APPLICATION_PATH: &str =
    "SELECT pg_catalog.set_config('search_path', pg_catalog.current_setting('posthaste.search_path'), false)";

/// The schema in which the application's search path has tables made; an expression, for sessions on our path.
macro_rules! default_schema {
    () => {
        "(SELECT s.name FROM unnest(current_setting('posthaste.schemas')::name[]) WITH ORDINALITY s (name, turn)
          WHERE s.name <> 'posthaste' ORDER BY s.turn LIMIT 1)"
    };
}
pub(super) use default_schema;

/// Whether a role `r` of `pg_roles` is one that this session's has no reason to trust. A superuser is a member of all, and
/// trusts none for that.
macro_rules! stranger {
    () => {
        "(NOT r.rolsuper AND r.rolname <> current_user
          AND ((SELECT me.rolsuper FROM pg_roles me WHERE me.rolname = current_user)
               OR NOT pg_has_role(current_user, r.oid, 'MEMBER')))"
    };
}
pub(super) use stranger;

/// The one that was made with the rest of ours: it has the journal's owner, or one whom this role trusts anyway. Of several
/// the first in the application's search path.
const FIND: &str = concat!(
    "/* find_ibisstore */
SELECT c.oid, quote_ident(n.nspname)
FROM pg_namespace own JOIN pg_class j ON j.relnamespace = own.oid AND j.relname = 'journal'
JOIN pg_class c ON c.relname = 'ibisstore' AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
WHERE own.nspname = 'posthaste' AND (c.relowner = j.relowner OR NOT ",
    stranger!(),
    ")
ORDER BY c.relowner <> j.relowner, array_position(current_setting('posthaste.schemas')::name[], n.nspname), n.nspname LIMIT 1"
);

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path TO DEFAULT";
/// Where what the session began with is not the application's path.
const BEGIN_KEPT: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SELECT pg_catalog.set_config('search_path', pg_catalog.current_setting('posthaste.search_path'), true)";

/// Where the application's search path is.
#[derive(Debug, Clone, Default)]
pub(super) enum Kept {
    /// It is what the session began with, and what a RESET comes back to.
    #[default]
    AsBegun,
    /// It is not, for a role with our schema's name. What begins a transaction with it.
    Apart(Arc<str>),
}

impl Kept {
    /// Begins a transaction of the application's steps.
    pub(super) fn begin(&self) -> &str {
        match self {
            Self::AsBegun => BEGIN,
            Self::Apart(begin) => begin,
        }
    }

    fn apart(path: &str) -> Self {
        Self::Apart(listed(path).map_or_else(|| BEGIN_KEPT.into(), |path| begin_with(&path).into()))
    }
}

/// As `BEGIN_KEPT` does; nothing is planned for it.
fn begin_with(path: &str) -> String {
    format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = {path}")
}

/// A search path as SQL has it, each name in quotes. `None`: one is not of the usual kinds.
fn listed(path: &str) -> Option<String> {
    let names: Option<Vec<String>> = path.split(',').map(|name| quoted(name.trim_ascii())).collect();
    Some(names?.join(", "))
}

fn quoted(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let bare = match name.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => Some(name).filter(|name| name.chars().all(plain))?,
    };
    (!bare.is_empty() && !bare.contains('"')).then(|| format!("\"{bare}\""))
}

/// To be the first that is said in a session.
pub(super) async fn open(client: &Client) -> Result<Kept, tokio_postgres::Error> {
    let said = client.simple_query(OPEN).await?;
    let mut rows = said.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        // How many rows, and of what columns; the library's enum is open.
        _ => None,
    });
    // A second row means that it is kept apart, whatever stands in it.
    Ok(rows.nth(1).map_or(Kept::AsBegun, |row| Kept::apart(row.get(0).unwrap_or_default())))
}

/// Where `ibisstore` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub oid: u32,
    /// As SQL names it.
    pub schema: String,
    /// With its schema.
    pub name: String,
}

/// `None`: there is none that could be ours. For sessions on our path.
pub(super) async fn find(client: &Client) -> Result<Option<Table>, tokio_postgres::Error> {
    let row = client.query_opt(FIND, &[]).await?;
    let table = |row: Row| {
        let schema: String = row.get(1);
        Table { oid: row.get(0), name: format!("{schema}.ibisstore"), schema }
    };
    Ok(row.map(table))
}

/// What roles that ours does not trust have put into a schema under a name of PostgreSQL's own: $1, as SQL names it.
const IN_THE_WAY: &str = concat!(
    "/* in_the_way */
SELECT DISTINCT what || ' ' || name || ' of ' || quote_ident(r.rolname)
FROM (SELECT 'operator' AS what, o.oprname AS name, o.oprowner AS owner, o.oprnamespace AS place FROM pg_operator o
      WHERE EXISTS (SELECT FROM pg_operator b WHERE b.oprname = o.oprname AND b.oprnamespace = 'pg_catalog'::regnamespace)
      UNION ALL
      SELECT 'function', p.proname, p.proowner, p.pronamespace FROM pg_proc p
      WHERE EXISTS (SELECT FROM pg_proc b WHERE b.proname = p.proname AND b.pronamespace = 'pg_catalog'::regnamespace)) f
JOIN pg_namespace n ON n.oid = f.place JOIN pg_roles r ON r.oid = f.owner
WHERE quote_ident(n.nspname) = $1::text AND ",
    stranger!(),
    " ORDER BY 1"
);

/// What could be taken for PostgreSQL's own where a migration names something in this schema; for sessions on our path.
pub(super) async fn in_the_way(client: &Client, schema: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    Ok(client.query(IN_THE_WAY, &[&schema]).await?.iter().map(|row| row.get(0)).collect())
}

/// The statements about one home, with the place of `ibisstore` there. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: OnceLock<String>,
    /// By where the text stands in the program.
    texts: RwLock<HashMap<(usize, usize), Arc<str>>>,
}

impl Names {
    /// Learns it from the first session that has it.
    pub(super) async fn learn(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        if self.0.table.get().is_none()
            && let Some(table) = find(client).await?
        {
            let _first = self.0.table.set(table.name);
        }
        Ok(())
    }

    /// A statement of the program, made once. To be asked in a session: the first tells the place.
    pub(super) fn sql(&self, text: &'static str) -> Arc<str> {
        let at = (text.as_ptr().addr(), text.len());
        if let Some(made) = self.0.texts.read().unwrap_or_else(PoisonError::into_inner).get(&at) {
            return made.clone();
        }
        let made: Arc<str> = self.of(text).into();
        if self.0.table.get().is_some() {
            self.0.texts.write().unwrap_or_else(PoisonError::into_inner).insert(at, made.clone());
        }
        made
    }

    /// The same for a text that is put together each time.
    pub(super) fn of(&self, text: &str) -> String {
        put(text, self.0.table.get().map_or("ibisstore", String::as_str))
    }
}

/// The text with this name of the table.
pub(super) fn put(text: &str, table: &str) -> String {
    text.replace(PLACE, table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_usual_names_is_set_without_a_question_and_any_other_is_asked_for() {
        for (path, as_sql) in [
            ("public", "\"public\""),
            ("\"$user\", public", "\"$user\", \"public\""),
            ("app_1,\"Größe\" ,  \"a b\"", "\"app_1\", \"Größe\", \"a b\""),
        ] {
            assert_eq!(listed(path).as_deref(), Some(as_sql));
            assert!(Kept::apart(path).begin().ends_with(&format!("SET LOCAL search_path = {as_sql}")));
        }
        for path in ["", "public,", "App", "größe", "a-b", "\"a\"\"b\"", "\"a, b\"", "\"\"", "a; DROP TABLE b", "\""]
        {
            assert_eq!(listed(path), None, "{path}");
            assert_eq!(Kept::apart(path).begin(), BEGIN_KEPT);
        }
    }

    #[test]
    fn a_statement_is_made_once_the_place_is_known() {
        const TEXT: &str = "SELECT 1 FROM :ibisstore i JOIN :ibisstore USING (messagekey)";
        let names = Names::default();
        assert_eq!(&*names.sql(TEXT), "SELECT 1 FROM ibisstore i JOIN ibisstore USING (messagekey)");
        names.0.table.set("\"a b\".ibisstore".to_owned()).unwrap();
        let made = names.sql(TEXT);
        assert_eq!(&*made, "SELECT 1 FROM \"a b\".ibisstore i JOIN \"a b\".ibisstore USING (messagekey)");
        assert!(Arc::ptr_eq(&made, &names.sql(TEXT)));
    }
}
