//! Messages whose step raises what a database in trouble answers (protocol §5, ADR 18).

use crate::support::{App, LONG, SOON, Servers, eventually, run};

/// `poison-XX000` raises XX000.
pub const TRAP: &str = "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.message LIKE 'poison-%' THEN
            RAISE EXCEPTION 'the trap is shut' USING ERRCODE = substr(NEW.message, 8, 5);
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER trap BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION trap()";
/// One of each class.
pub const CODES: [&str; 5] = ["XX000", "53100", "57P01", "58030", "08006"];

#[test]
fn a_message_that_fails_like_a_database_in_trouble_stops_nobody_and_is_kept_with_its_reason() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.db.batch(TRAP).await;
        for code in CODES {
            let id = format!("poison-{code}");
            assert_eq!(app.post(&id, &id).await.status, 202);
            for number in 0..6 {
                let good = format!("good-{code}-{number}");
                assert_eq!(app.post(&good, &good).await.status, 202);
                // So that something succeeds between two of them.
                app.processed(&good, SOON).await;
            }
        }
        let rows = eventually("all of them are in the error store", LONG, async || {
            let rows = app.error_rows().await;
            if rows.len() == CODES.len() { Ok(rows) } else { Err(format!("{rows:?}")) }
        })
        .await;
        app.settled(SOON).await;
        for code in CODES {
            let id = format!("poison-{code}");
            let row = rows.iter().find(|row| row.message_id == id).unwrap();
            assert!(row.comments.contains("the trap is shut"), "{id}: {}", row.comments);
            assert!(row.comments.contains(code), "{id}: {}", row.comments);
            // Six that count, and the two that were excused.
            let attempts = app.attempts(&id).await;
            assert_eq!(attempts.len(), 8, "{attempts:?}");
            assert!(attempts.iter().all(|one| one.error.contains("the trap is shut")), "{attempts:?}");
            assert_eq!(app.effects(&id).await, [0, 0]);
        }
        assert!(!app.log_text().contains("not consuming"), "nobody else is stopped");
    });
}

/// How often a poison had been tried, at most, when the last good one was done.
const TRIED_BEFORE: &str = "SELECT coalesce(max(tries), 0) FROM (
        SELECT count(*) AS tries FROM posthaste.attempt
        WHERE finished_at < (SELECT max(finished_at) FROM posthaste.journal WHERE state = 'DONE') GROUP BY tx_id) each";

#[test]
fn poisons_that_accuse_the_database_together_at_the_head_of_a_queue_starve_nobody_behind_them() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.db.batch(TRAP).await;
        app.stop_adapter("writeDb").await;
        // Many more than are tried at once.
        let poisons: Vec<String> = (0..24).map(|number| format!("poison-XX000-{number}")).collect();
        let good: Vec<String> = (0..50).map(|number| format!("good-{number}")).collect();
        for text in poisons.iter().chain(&good) {
            assert_eq!(app.post(text, text).await.status, 202);
        }
        app.start_adapter("writeDb").await;
        for text in &good {
            app.processed(text, LONG).await;
        }
        let tried: i64 = app.db.one(TRIED_BEFORE, &[]).await;
        assert!(tried <= 3, "a poison was tried {tried} times before those behind it had their turn");

        // By themselves they would excuse each other for minutes: ten times each.
        app.db.batch("UPDATE posthaste.journal SET max_attempts = max_attempts + 9 WHERE state <> 'DONE'").await;
        let rows = eventually("all of them are in the error store", LONG, async || {
            let rows = app.error_rows().await;
            if rows.len() == poisons.len() { Ok(rows) } else { Err(format!("{} of them", rows.len())) }
        })
        .await;
        app.settled(SOON).await;
        for row in rows {
            assert!(poisons.contains(&row.message_id), "{row:?}");
            assert!(row.comments.contains("the trap is shut"), "{row:?}");
        }
        for text in &poisons {
            assert_eq!(app.effects(text).await, [0, 0], "{text}");
        }
        for text in &good {
            assert_eq!(app.effects(text).await, [1, 1], "{text}");
        }
    });
}
