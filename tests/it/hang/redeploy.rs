//! Instances that are stopped again and again under load, with messages that take longer than a stop waits for (ADR 18).

use super::some_seconds;
use crate::support::{App, LONG, Options, Servers, run};
use crate::trial::{Trial, seed};

/// A message of ten is slow, each time.
const SLOW: &str = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF hashtext(NEW.message) % 10 = 0 THEN PERFORM pg_sleep(1.5); END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER slow BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION slow()";

#[test]
#[ignore = "a minute each; make hang runs them"]
fn redeployment_under_load_uses_up_nobodys_attempts() {
    run(async {
        let mut app = App::install(Servers::shared().await, Options::default()).await;
        app.edit_resources("  lease: 2s\n", "  lease: 2s\n  stopTimeout: 1s\n");
        app.db.batch(SLOW).await;
        app.run();
        app.ready(LONG).await;
        let trial = Trial::start("redeploy", seed(), &[app.api]);
        for _ in 0..10 {
            some_seconds(1).await;
            assert_eq!(app.stop().await, Some(0));
            app.run();
            app.ready(LONG).await;
        }
        let stopped = app.db.count("posthaste.attempt WHERE outcome = 'STOPPED'", &[]).await;
        let counted = "posthaste.attempt WHERE outcome = 'CRASHED'";
        assert_eq!(app.db.count(counted, &[]).await, 0, "nobody has died");
        eprintln!("redeploy: {stopped} attempts were stopped");
        trial.judge(&mut app).await.accepted_at_least(50);
        assert!(stopped > 0, "no attempt was stopped");
    });
}
