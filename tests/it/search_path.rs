//! What other roles put into the schemas of the search path: nothing of ours goes there, and the application's statements
//! mean what they meant (ADR 23).

use futures_util::future::join_all;
use lapin::BasicProperties;
use reqwest::Method;

use crate::support::{Amqp, App, Application, Database, LONG, Options, SOON, Servers, eventually, run, same};

/// Servers are shared, and roles are the server's.
const STRANGER: &str =
    "DO $$ BEGIN CREATE ROLE evil_role; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$";
/// Says of every two texts that they are equal, and takes down who has asked; and a table of the right name and shape.
const EVIL: &str = "
    CREATE SCHEMA evil AUTHORIZATION evil_role;
    GRANT USAGE ON SCHEMA evil TO PUBLIC;
    SET ROLE evil_role;
    CREATE TABLE evil.caught (what text);
    CREATE FUNCTION evil.equal(one varchar, other varchar) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO evil.caught VALUES (one || ' = ' || other); RETURN true; END $$;
    CREATE OPERATOR evil.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = evil.equal);
    CREATE FUNCTION evil.unnest(ids uuid[]) RETURNS SETOF uuid LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO evil.caught VALUES ('unnest'); RETURN QUERY SELECT pg_catalog.unnest(ids); END $$;
    CREATE FUNCTION evil.array_position(ids uuid[], id uuid) RETURNS integer LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO evil.caught VALUES ('array_position'); RETURN pg_catalog.array_position(ids, id); END $$;
    CREATE FUNCTION evil.cardinality(ids uuid[]) RETURNS integer LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO evil.caught VALUES ('cardinality'); RETURN pg_catalog.cardinality(ids); END $$;
    GRANT ALL ON ALL TABLES IN SCHEMA evil TO PUBLIC;
    RESET ROLE;";
/// As its role: it may not read ours, but it knows what it looks like.
const EVIL_TABLE: &str = "CREATE TABLE evil.ibisstore (LIKE public.ibisstore INCLUDING ALL);
    ALTER TABLE evil.ibisstore OWNER TO evil_role; GRANT ALL ON evil.ibisstore TO PUBLIC";

/// In front of PostgreSQL's own schema one in which every operator, function and type that a statement of ours could name is
/// a trap: whatever is named without its schema there fails.
const TRAPS: &str = r"
    CREATE SCHEMA trap;
    GRANT USAGE ON SCHEMA trap TO PUBLIC;
    CREATE FUNCTION trap.concat_ws(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS
        $f$ BEGIN RAISE EXCEPTION 'trapped by concat_ws'; END $f$;
    DO $do$
    DECLARE
        o record;
        f record;
        n integer := 0;
    BEGIN
        FOR o IN
            SELECT p.oprname, l.oid AS l, r.oid AS r, x.oid AS x FROM pg_operator p
            JOIN pg_type l ON l.oid = p.oprleft JOIN pg_type r ON r.oid = p.oprright JOIN pg_type x ON x.oid = p.oprresult
            WHERE p.oprnamespace = 'pg_catalog'::regnamespace
              AND p.oprname IN ('=', '<>', '<', '<=', '>', '>=', '+', '-', '*', '||', '~~', '->>')
              AND l.typtype = 'b' AND r.typtype = 'b' AND x.typtype = 'b'
        LOOP
            n := n + 1;
            EXECUTE format('CREATE FUNCTION trap.o%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS
                $f$ BEGIN RAISE EXCEPTION ''trapped by operator %s''; END $f$', n, o.l::regtype, o.r::regtype, o.x::regtype, o.oprname);
            EXECUTE format('CREATE OPERATOR trap.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = trap.o%s)',
                o.oprname, o.l::regtype, o.r::regtype, n);
        END LOOP;
        FOR f IN
            SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
            FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
              AND p.proargmodes IS NULL AND p.proname IN
                ('clock_timestamp', 'now', 'unnest', 'array_position', 'cardinality', 'set_config', 'current_setting',
                 'hashtextextended', 'pg_advisory_xact_lock_shared', 'pg_advisory_xact_lock', 'to_regclass', 'regexp_matches',
                 'lpad', 'substr', 'pg_walfile_name', 'pg_current_wal_lsn', 'pg_backend_pid', 'pg_current_xact_id_if_assigned',
                 'gen_random_uuid', 'current_schemas', 'date_part')
        LOOP
            EXECUTE format('CREATE FUNCTION trap.%I(%s) RETURNS %s LANGUAGE plpgsql AS
                $f$ BEGIN RAISE EXCEPTION ''trapped by %s''; END $f$', f.proname, f.arguments, f.result, f.proname);
        END LOOP;
        CREATE DOMAIN trap.text AS pg_catalog.text CHECK (VALUE IS NULL);
        CREATE DOMAIN trap.uuid AS pg_catalog.uuid CHECK (VALUE IS NULL);
    END $do$;
    CREATE TABLE trap.ibisstore (trapped integer);
    ALTER TABLE trap.ibisstore OWNER TO evil_role";

/// Beside write-db: an accepting pipeline that writes.
const DIRECT: &str = "adapters:
  - name: direct
    receiver: { checkForDuplicates: true, listener: { api: { uriPattern: /direct } }, messageLog: { slotId: direct-req } }
    pipeline:
      - { name: here, query: { database: main, sql: 'INSERT INTO message (message) VALUES ($1)', params: [ payload ] } }
      - { name: on, amqpSender: { connection: rabbit, destinationName: myQueue } }
";

/// In the application's own schema, found by the search path alone: also by what runs at COMMIT, and from within a function.
const OWN_SCHEMA: &str = "CREATE SCHEMA app;
    CREATE TABLE app.kept (message varchar(30) NOT NULL);
    CREATE TABLE app.seen (message varchar(30) NOT NULL);
    CREATE FUNCTION app.see() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO seen VALUES (NEW.message); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON app.kept DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION app.see();
    CREATE FUNCTION app.keep(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO kept VALUES ($1); END $$;
    GRANT USAGE ON SCHEMA app TO PUBLIC;
    GRANT ALL ON ALL TABLES IN SCHEMA app TO PUBLIC";
const KEEP: &str = "adapters:
  - name: keepAsync
    receiver: { listener: { api: { uriPattern: /keep } }, messageLog: { slotId: keep-req } }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: keep } } ]
  - name: keep
    receiver: { maxRetries: 0, listener: { amqp: { connection: rabbit, destinationName: keep } } }
    pipeline:
      - { name: keep, query: { database: main, sql: 'SELECT keep($1)', params: [ payload ] } }
      - { name: look, query: { database: main, sql: 'SELECT 1 FROM kept WHERE message = $1', params: [ payload ] } }
";

/// In both databases, in one transaction.
const BOTH: &str = "adapters:
  - name: bothAsync
    receiver: { listener: { api: { uriPattern: /both } }, messageLog: { slotId: both-req } }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: both } } ]
  - name: both
    receiver: { maxRetries: 0, listener: { amqp: { connection: rabbit, destinationName: both } } }
    pipeline:
      - { name: here, query: { database: main, sql: 'INSERT INTO note VALUES ($1)', params: [ payload ] } }
      - { name: there, query: { database: ledgerA, sql: 'INSERT INTO note VALUES ($1)', params: [ payload ] } }
";
const NOTE: &str = "CREATE TABLE public.note (note varchar(30) PRIMARY KEY)";

/// A role that may do what an instance needs, and no more.
const PLAIN: &str =
    "DO $$ BEGIN CREATE ROLE plain_path LOGIN PASSWORD 'a-long-password'; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$;
    GRANT USAGE ON SCHEMA posthaste TO plain_path;
    GRANT ALL ON ALL TABLES IN SCHEMA posthaste TO plain_path;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO plain_path;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO plain_path;
    GRANT pg_monitor TO plain_path;
    GRANT EXECUTE ON FUNCTION pg_control_system TO plain_path";

/// Another role does this.
async fn by_a_stranger(db: &Database, what: &str) {
    db.batch(STRANGER).await;
    db.batch(what).await;
}

impl App {
    /// From its next start on, its sessions look names up there.
    fn looks_in(&self, entry: &str, schemas: &str) {
        let url = self.url_of(entry);
        self.edit_resources(&format!("{url}\n"), &format!("{url}?options=-csearch_path%3D{schemas}\n"));
    }

    /// Everything that an instance does with messages, once.
    async fn does_everything(&self) {
        let posts =
            (0..40).map(|number| async move { self.post(&format!("m-{number}"), &format!("m-{number}")).await.status });
        assert_eq!(join_all(posts).await, [202; 40]);
        for number in 0..40 {
            self.processed(&format!("m-{number}"), LONG).await;
        }
        assert_eq!(self.post("m-0", "m-0").await.status, 304);
        assert_eq!(self.post_to("/api/direct", "d-0", "direct").await.status, 202);
        assert_eq!(self.post_to("/api/direct", "d-0", "direct").await.status, 304);
        eventually("it is written, sent and processed", LONG, async || same(self.effects("direct").await, &[2, 1]))
            .await;
        let amqp = Amqp::connect(self.amqp_url()).await;
        amqp.publish("myQueue", BasicProperties::default().with_message_id("f-0".into()), b"foreign").await;
        self.processed("foreign", LONG).await;

        let too_long = "no column takes thirty-one characters";
        assert_eq!(self.post("poison", too_long).await.status, 202);
        let row = self.in_error("poison").await;
        let path = format!("/api/v1/stores/write-db/messages/{}", row.key);
        assert_eq!(self.console(Method::POST, &format!("{path}/resend")).await.status, 422);
        assert_eq!(self.in_error("poison").await.key, row.key);
        assert_eq!(self.get(&path).await["messageId"], "poison");
        assert_eq!(self.get("/api/v1/messages/poison").await["state"], "error");
        self.settled(LONG).await;
        let proved = self.command(&["prove"]);
        assert!(proved.status.success(), "{proved:?}");
        assert_eq!(self.db.count("ibisstore WHERE slotid = 'write-db-req'", &[]).await, 41);
    }

    async fn caught(&self) -> Vec<String> {
        let mut caught: Vec<String> = self.db.column("SELECT what FROM evil.caught", &[]).await;
        caught.extend(self.db.column::<String>("SELECT 'ibisstore ' || messageid FROM evil.ibisstore", &[]).await);
        caught
    }
}

#[test]
fn a_table_an_operator_and_functions_that_another_role_has_put_in_front_get_nothing() {
    run(async {
        let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
        app.write("configurations/direct/adapters.yml", DIRECT);
        app.migrate();
        by_a_stranger(&app.db, EVIL).await;
        app.db.batch(EVIL_TABLE).await;
        app.looks_in("main", "evil,public");
        app.run();
        app.ready(LONG).await;
        app.does_everything().await;
        assert_eq!(app.caught().await, [""; 0]);
    });
}

#[test]
fn nothing_that_is_said_among_steps_leaves_its_schema_to_the_search_path() {
    run(async {
        for plain in [false, true] {
            let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
            app.write("configurations/direct/adapters.yml", DIRECT);
            app.migrate();
            by_a_stranger(&app.db, TRAPS).await;
            app.looks_in("main", "trap,pg_catalog,public");
            if plain {
                app.db.batch(PLAIN).await;
                app.log_in_as("plain_path", "a-long-password", None);
            }
            app.run();
            app.ready(LONG).await;
            app.does_everything().await;
        }
    });
}

#[test]
fn nor_is_anything_that_is_said_among_the_steps_of_several_databases() {
    run(async {
        let options = Options { application: Application::TwoDatabases, ..Options::default() };
        let mut app = App::lay_out(Servers::shared().await, options).await;
        app.write("configurations/both/adapters.yml", BOTH);
        app.migrate();
        for entry in ["main", "ledgerA"] {
            let db = app.database(entry);
            db.batch(NOTE).await;
            by_a_stranger(&db, TRAPS).await;
            app.looks_in(entry, "trap,pg_catalog,public");
        }
        app.run();
        app.ready(LONG).await;
        let posts = (0..40).map(|number| {
            let (app, id) = (&app, format!("b-{number}"));
            async move { app.post_to("/api/both", &id, &id).await.status }
        });
        assert_eq!(join_all(posts).await, [202; 40]);
        for entry in ["main", "ledgerA"] {
            let db = app.database(entry);
            eventually("all are noted", LONG, async || same(db.count("note", &[]).await, &40)).await;
        }
        assert_eq!(app.db.count("ibisstore WHERE type = 'E'", &[]).await, 0);
    });
}

#[test]
fn an_application_s_statements_triggers_and_functions_keep_its_search_path() {
    run(async {
        for plain in [false, true] {
            let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
            app.write("configurations/keep/adapters.yml", KEEP);
            app.migrate();
            app.db.batch(OWN_SCHEMA).await;
            app.looks_in("main", "app,public");
            if plain {
                app.db.batch(PLAIN).await;
                app.log_in_as("plain_path", "a-long-password", None);
            }
            app.run();
            app.ready(LONG).await;
            for text in ["one", "two"] {
                assert_eq!(app.post_to("/api/keep", text, text).await.status, 202);
                let kept = async || {
                    [
                        app.db.count("app.kept WHERE message = $1::text", &[&text]).await,
                        app.db.count("app.seen WHERE message = $1::text", &[&text]).await,
                    ]
                };
                eventually("it is kept, and seen", LONG, async || same(kept().await, &[1, 1])).await;
            }
            app.settled(SOON).await;
        }
    });
}

#[test]
fn a_migration_of_ours_is_not_applied_among_another_role_s_operators() {
    run(async {
        let app = App::lay_out(Servers::shared().await, Options::default()).await;
        app.db.batch(STRANGER).await;
        app.db
            .batch(
                "GRANT CREATE ON SCHEMA public TO evil_role; SET ROLE evil_role;
            CREATE FUNCTION public.equal(one varchar, other varchar) RETURNS boolean LANGUAGE sql AS 'SELECT true';
            CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.equal)",
            )
            .await;
        let refused = app.command(&["migrate"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("operator = of evil_role"), "{said}");
        app.db.batch("DROP OPERATOR public.= (varchar, varchar)").await;
        app.migrate();
        // Whoever may create there is named by doctor, and what goes in afterwards is not asked.
        let doctor = app.command(&["doctor", "--output", "json"]);
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(said.contains("evil_role may create in schema"), "{said}");
    });
}
