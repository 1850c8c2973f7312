//! Messages that are at work when their instance is stopped or killed (protocol §5, ADR 18).

use crate::support::{App, LONG, Options, SOON, Servers, eventually, run, same};

/// The step does not come to its end with such a message as long as the gate is shut.
pub const GATE: &str = "CREATE TABLE public.gate (shut boolean);
    INSERT INTO public.gate VALUES (true);
    CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.message LIKE 'slow%' THEN
            PERFORM pg_advisory_xact_lock_shared(7);
            WHILE EXISTS (SELECT FROM public.gate) LOOP PERFORM pg_sleep(0.05); END LOOP;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER gate BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION wait_at_gate()";
/// From there to the end of its transaction, whatever it does at the moment.
pub const AT_THE_GATE: &str = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND pid IS NOT NULL
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
/// maxRetries is 5.
const MORE_OFTEN_THAN_ATTEMPTS: i32 = 8;

impl App {
    async fn with_gate(stop_timeout: &str) -> Self {
        let mut app = Self::install(Servers::shared().await, Options::default()).await;
        app.edit_resources("  lease: 2s\n", &format!("  lease: 2s\n  stopTimeout: {stop_timeout}\n"));
        app.db.batch(GATE).await;
        app.run();
        app.ready(LONG).await;
        app
    }

    pub async fn open_gate(&self) {
        self.db.rows("DELETE FROM public.gate", &[]).await;
    }

    async fn at_the_gate(&self) {
        eventually("a message is at the gate", LONG, async || {
            let waiting: Vec<i32> = self.db.column(AT_THE_GATE, &[]).await;
            if waiting.is_empty() { Err("none".to_owned()) } else { Ok(()) }
        })
        .await;
    }

    async fn nobody_at_the_gate(&self) {
        let probe = async || same(self.db.column::<i32>(AT_THE_GATE, &[]).await, &Vec::new());
        eventually("nobody is at the gate any more", SOON, probe).await;
    }

    /// Kills the process, and the server's part of it, which does not notice that its client is gone.
    async fn kill_at_the_gate(&mut self) {
        self.kill9().await;
        self.db.rows(&format!("SELECT pg_terminate_backend(pid) FROM ({AT_THE_GATE}) waiting"), &[]).await;
        self.nobody_at_the_gate().await;
    }

    /// It was processed by the last of its attempts; all before it were stopped.
    async fn processed_after_stops(&self, id: &str) {
        self.open_gate().await;
        eventually("it is processed once", LONG, async || same(self.effects(id).await, &[1, 1])).await;
        self.settled(LONG).await;
        assert_eq!(self.error_rows().await, []);
        let attempts = self.attempts(id).await;
        let (last, before) = attempts.split_last().unwrap();
        assert_eq!(last.outcome, "SUCCEEDED", "{attempts:?}");
        assert!(before.iter().all(|one| one.outcome == "STOPPED"), "{attempts:?}");
        assert!(before.len() > 6, "{attempts:?}");
    }
}

#[test]
fn a_message_whose_instance_is_stopped_each_time_is_processed_once_it_is_given_the_time() {
    run(async {
        let mut app = App::with_gate("1s").await;
        assert_eq!(app.post("slow", "slow").await.status, 202);
        for _ in 0..MORE_OFTEN_THAN_ATTEMPTS {
            app.at_the_gate().await;
            assert_eq!(app.stop().await, Some(0));
            app.nobody_at_the_gate().await;
            app.run();
            app.ready(LONG).await;
        }
        assert!(app.log_text().contains("it does not count"));
        app.processed_after_stops("slow").await;
    });
}

#[test]
fn a_stop_that_ends_by_kill_9_because_it_took_too_long_does_not_count_either() {
    run(async {
        let mut app = App::with_gate("3s").await;
        assert_eq!(app.post("slow", "slow").await.status, 202);
        app.at_the_gate().await;
        assert_eq!(app.stop().await, Some(0));
        app.run();
        app.ready(LONG).await;
        for stops in 1..=i64::from(MORE_OFTEN_THAN_ATTEMPTS) {
            app.at_the_gate().await;
            app.ask_to_stop();
            let announced = async || {
                let count = app.db.count("posthaste.instance WHERE stopping_at IS NOT NULL", &[]).await;
                same(count, &(stops + 1))
            };
            eventually("the stop is announced", SOON, announced).await;
            app.kill_at_the_gate().await;
            app.run();
            app.ready(LONG).await;
        }
        app.processed_after_stops("slow").await;
    });
}

#[test]
fn a_message_is_processed_while_those_that_a_process_died_of_wait_for_their_turn() {
    run(async {
        let mut app = App::with_gate("1s").await;
        // More than are processed side by side.
        let slow: Vec<String> = (0..12).map(|number| format!("slow-{number}")).collect();
        for id in &slow {
            assert_eq!(app.post(id, id).await.status, 202);
        }
        for _ in 0..2 {
            app.at_the_gate().await;
            app.kill_at_the_gate().await;
            app.run();
            app.ready(LONG).await;
        }
        app.at_the_gate().await;
        for number in 0..3 {
            let id = format!("fresh-{number}");
            assert_eq!(app.post(&id, &id).await.status, 202);
            app.processed(&id, SOON).await;
        }
        app.at_the_gate().await;
        app.open_gate().await;
        app.settled(LONG).await;
        assert_eq!(app.error_rows().await, []);
        for id in &slow {
            assert_eq!(app.effects(id).await, [1, 1], "{id}");
        }
    });
}
