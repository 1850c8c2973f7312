//! Messages that fail like a database in trouble, among good ones (ADR 18).

use super::some_seconds;
use crate::support::{App, LONG, Servers, run};
use crate::trial::{Trial, seed};

/// What is too long for the tables raises an error of one of the classes XX, 53 and 57.
const TRAP: &str = "ALTER TABLE message ALTER message TYPE text;
    CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF length(NEW.message) > 30 THEN
            RAISE EXCEPTION 'the trap is shut'
            USING ERRCODE = (ARRAY['XX000', '53100', '57P01'])[1 + abs(hashtext(NEW.message) % 3)];
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER trap BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION trap()";

#[test]
#[ignore = "a minute each; make hang runs them"]
fn poison_like_a_database_in_trouble_harms_no_neighbour() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        app.db.batch(TRAP).await;
        let trial = Trial::start("poison", seed(), &[app.api]);
        some_seconds(30).await;
        app.ready(LONG).await;
        trial.judge(&mut app).await.accepted_at_least(50);
        let kept: i64 = app.db.count("ibisstore WHERE type = 'E'", &[]).await;
        let other = "ibisstore WHERE type = 'E' AND comments NOT LIKE '%the trap is shut%'";
        assert!(kept > 0, "no poison came");
        assert_eq!(app.db.count(other, &[]).await, 0, "each is kept with its own reason");
        let sessions = app.log_text().matches("not consuming").count();
        eprintln!("poison: {kept} in the error store, the database was blamed {sessions} times");
    });
}
