//! Steps that only insert: the rows of many messages in one statement, where nothing can tell the difference.

use super::{TOO_LONG, numbered};
use crate::support::{App, LONG, Options, SOON, Servers, eventually, run};

/// Rows of one command of one transaction share both.
const STATEMENTS: &str = "SELECT count(DISTINCT (xmin::text, cmin::text)) FROM message WHERE message LIKE $1";
const OF_ONE: &str = "SELECT count(DISTINCT xmin::text) FROM message WHERE message LIKE $1";

/// How long what is known of a table is taken for true.
const A_SECOND: std::time::Duration = std::time::Duration::from_secs(1);
/// What the first step of the sample does.
const FIRST: &str = "sql: 'INSERT INTO message (message) VALUES ($1)', params: [ payload ]";

/// An installation that knows by now that its messages are fast, and whose tables have no triggers. `tables` and
/// `first`: what is there beside the sample's, and what its first step does.
async fn plain(tables: &str, first: &str) -> App {
    let mut app = App::install(Servers::shared().await, Options::default()).await;
    let file = "configurations/write-db/adapters.yml";
    let text = std::fs::read_to_string(app.folder().join(file)).unwrap();
    assert!(text.contains(FIRST), "{text}");
    app.write(file, &text.replace(FIRST, first));
    app.db.batch(tables).await;
    app.run();
    app.ready(LONG).await;
    app.learned(r#"SELECT count(DISTINCT xmin::text) FROM "otherMessage" WHERE message LIKE $1"#).await;
    app
}

impl App {
    /// Lets 60 messages pile up and go; answers how many transactions and how many statements wrote them.
    async fn sixty(&self, name: &str) -> (i64, i64) {
        let messages = numbered(name, 60);
        self.pile_up(&messages, async || {}).await;
        self.untouched(&messages, &[]).await;
        self.settled(SOON).await;
        assert_eq!(self.error_rows().await, []);
        let like = format!("{name}-%");
        (self.db.one(OF_ONE, &[&like]).await, self.db.one(STATEMENTS, &[&like]).await)
    }
}

#[test]
fn rows_of_many_messages_go_in_few_statements_and_each_message_has_its_own() {
    run(async {
        let app = plain("", FIRST).await;
        let (transactions, statements) = app.sixty("rows").await;
        assert!(transactions <= 30, "{transactions} transactions");
        // Rows that are few go in one statement, and 60 in two.
        assert!(statements <= 40, "{statements} statements in {transactions} transactions");
        // In the order of the queue.
        let order = "SELECT string_agg(message, ' ' ORDER BY id) = string_agg(message, ' ' ORDER BY xmin::text::bigint, message)
            FROM message WHERE message LIKE 'rows-%'";
        assert!(app.db.one::<bool>(order, &[]).await);
    });
}

#[test]
fn one_poison_among_many_rows_harms_no_neighbour_and_each_of_its_attempts_counts_once() {
    run(async {
        let app = plain("", FIRST).await;
        app.db.batch("CREATE UNIQUE INDEX once ON \"otherMessage\" (message)").await;
        let mut messages = numbered("good", 32);
        messages[16] = ("poison".to_owned(), TOO_LONG.to_owned());
        messages[20].1 = messages[4].1.clone();
        app.pile_up(&messages, async || {}).await;
        let twins = [messages[4].0.as_str(), messages[20].0.as_str()];
        let rows = eventually("two messages are in the error store", SOON, async || {
            let rows = app.error_rows().await;
            if rows.len() == 2 { Ok(rows) } else { Err(format!("{rows:?}")) }
        })
        .await;
        let poison = rows.iter().find(|row| row.message_id == "poison").unwrap();
        assert!(poison.comments.contains("value too long for type character varying(30)"), "{}", poison.comments);
        // Whichever came second: the two may have been in different transactions.
        let twin = rows.iter().find(|row| twins.contains(&row.message_id.as_str())).unwrap();
        assert!(twin.comments.contains("\"once\""), "{}", twin.comments);
        for guilty in ["poison", twin.message_id.as_str()] {
            let attempts = app.attempts(guilty).await;
            assert_eq!(attempts.iter().map(|attempt| attempt.n).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6], "{guilty}");
        }
        assert_eq!(app.effects(TOO_LONG).await, [0, 0]);
        app.untouched(&messages, &["poison", &twin.message_id]).await;
    });
}

#[test]
fn a_table_that_could_tell_the_difference_gets_each_row_by_itself_within_a_second() {
    run(async {
        let app = plain("", FIRST).await;
        let own = "CREATE TABLE public.counted (times bigserial);
            CREATE FUNCTION count_rows() RETURNS integer STABLE LANGUAGE sql AS 'SELECT count(*)::integer FROM message';
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO public.counted DEFAULT VALUES; RETURN NULL; END $$;";
        app.db.batch(own).await;
        for (name, made, undone) in [
            (
                "trigger",
                "CREATE TRIGGER note AFTER INSERT ON message FOR EACH STATEMENT EXECUTE FUNCTION note()",
                "DROP TRIGGER note ON message",
            ),
            (
                "default",
                "ALTER TABLE message ADD COLUMN rows_before integer DEFAULT count_rows()",
                "ALTER TABLE message DROP COLUMN rows_before",
            ),
            (
                "rule",
                "CREATE RULE also AS ON INSERT TO message DO ALSO INSERT INTO public.counted DEFAULT VALUES",
                "DROP RULE also ON message",
            ),
            (
                "currval",
                "ALTER TABLE message ADD COLUMN same_as bigint;
                ALTER TABLE message ALTER COLUMN same_as SET DEFAULT currval('message_id_seq')",
                "ALTER TABLE message DROP COLUMN same_as",
            ),
            (
                "check",
                "ALTER TABLE message ADD CONSTRAINT few CHECK (count_rows() < 1000000)",
                "ALTER TABLE message DROP CONSTRAINT few",
            ),
            (
                "domain",
                "CREATE DOMAIN public.kind AS text DEFAULT 'x'; ALTER TABLE message ADD COLUMN kind public.kind",
                "ALTER TABLE message DROP COLUMN kind",
            ),
            (
                "itself",
                "ALTER TABLE message ADD COLUMN before_it integer REFERENCES message (id)",
                "ALTER TABLE message DROP COLUMN before_it",
            ),
            (
                "partition",
                "CREATE TABLE public.whole (LIKE message) PARTITION BY LIST (message);
                ALTER TABLE public.whole ATTACH PARTITION message DEFAULT",
                "ALTER TABLE public.whole DETACH PARTITION message",
            ),
            (
                "policy",
                "ALTER TABLE message ENABLE ROW LEVEL SECURITY; CREATE POLICY all_in ON message USING (true)",
                "DROP POLICY all_in ON message; ALTER TABLE message DISABLE ROW LEVEL SECURITY",
            ),
        ] {
            app.db.batch(made).await;
            tokio::time::sleep(A_SECOND).await;
            let (transactions, statements) = app.sixty(name).await;
            assert_eq!(statements, 60, "{name}");
            assert!(transactions <= 30, "{name}: {transactions} transactions");
            app.db.batch(undone).await;
        }
        // A trigger and a rule, once for each message.
        assert_eq!(app.db.count("public.counted", &[]).await, 120);
        tokio::time::sleep(A_SECOND).await;
        let (_transactions, statements) = app.sixty("again").await;
        assert!(statements <= 40, "{statements} statements");
    });
}

#[test]
fn values_mean_in_many_rows_what_they_mean_in_one() {
    run(async {
        let tables = "CREATE TABLE public.typed (n bigserial, text varchar(40), bytes bytea, \"Id\" text, absent jsonb,
            given numeric DEFAULT 1.5, number smallint CHECK (number > 0), words text, at timestamptz, day date,
            made timestamptz DEFAULT now(), key uuid DEFAULT gen_random_uuid(), id integer GENERATED ALWAYS AS IDENTITY);";
        let app = plain(
            tables,
            "sql: \"INSERT INTO typed (text, bytes, \\\"Id\\\", absent, given, number, words, at, day) \
             VALUES ($2, $1, $3, $4::jsonb, DEFAULT, 7, 'two words', CURRENT_TIMESTAMP, '2026-11-22'::date)\", \
             params: [ payload, payload, messageId, header.x-none ]",
        )
        .await;
        app.pile_up(&numbered("typed", 60), async || {}).await;
        app.settled(SOON).await;
        assert_eq!(app.error_rows().await.first(), None);
        let right =
            "typed WHERE text LIKE 'typed-%' AND bytes = convert_to(text, 'UTF8') AND \"Id\" = text AND absent IS NULL
            AND given = 1.5 AND number = 7 AND words = 'two words' AND at <= now() AND day = '2026-11-22'";
        assert_eq!(app.db.count(right, &[]).await, 60);
        let statements = "SELECT count(DISTINCT (xmin::text, cmin::text)) FROM public.typed WHERE text LIKE 'typed-%'";
        let statements: i64 = app.db.one(statements, &[]).await;
        assert!(statements <= 40, "{statements} statements");
    });
}
