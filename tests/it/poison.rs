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
