//! Messages that kill the process which processes them (I7, protocol §5).

use lapin::BasicProperties;

use crate::support::{Amqp, App, LONG, SOON, Servers, eventually, run};

const QUEUE: &str = "myQueue";
const POISON: &str = "deadly";
/// The step sleeps over this message, long enough to be killed in it.
const TRAP: &str = "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW.message = 'deadly' THEN PERFORM pg_sleep(25); END IF; RETURN NEW; END $$";
const SET: &str = "CREATE TRIGGER trap BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION trap()";
const ASLEEP: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";

impl App {
    async fn set_trap(&self) {
        self.db.rows(TRAP, &[]).await;
        self.db.rows(SET, &[]).await;
    }

    /// Kills the process each time it has walked into the trap, until the message is in the error store; answers how
    /// often that was.
    async fn kill_until_given_up(&mut self) -> usize {
        for deaths in 0..12 {
            let next = eventually("it is tried or given up", LONG, async || {
                let stored = !self.error_rows().await.is_empty();
                let asleep: Vec<i32> = self.db.column(ASLEEP, &[]).await;
                if stored || !asleep.is_empty() { Ok(stored) } else { Err("neither".to_owned()) }
            });
            if next.await {
                return deaths;
            }
            self.kill9().await;
            // The server does not notice that its client is gone.
            self.db.rows(&format!("SELECT pg_terminate_backend(pid) FROM ({ASLEEP}) asleep"), &[]).await;
            self.run();
            self.ready(LONG).await;
        }
        panic!("it kills for ever");
    }

    async fn killed_and_kept(&mut self, max_attempts: usize) {
        let deaths = self.kill_until_given_up().await;
        // At most the very first attempt may go uncounted.
        assert!((max_attempts..=max_attempts + 1).contains(&deaths), "{deaths} deaths");
        self.settled(LONG).await;
        let rows = self.error_rows().await;
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.message_id.as_str(), row.body.as_slice()), (POISON, POISON.as_bytes()));
        assert!(row.comments.contains("the process ended"), "{}", row.comments);
        let outcomes: Vec<String> = self.db.column("SELECT DISTINCT outcome FROM posthaste.attempt", &[]).await;
        assert!(outcomes.contains(&"CRASHED".to_owned()), "{outcomes:?}");
        assert_eq!(self.effects(POISON).await, [0, 0]);
    }
}

#[test]
fn a_message_that_kills_its_process_ends_in_the_error_store_and_its_neighbours_do_not() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        app.set_trap().await;
        assert_eq!(app.post(POISON, POISON).await.status, 202);
        for number in 0..30 {
            // Some meet a dying process, and are posted again as any client would.
            let id = format!("innocent-{number}");
            let _answer = app.post(&id, &id).await;
        }
        app.killed_and_kept(6).await;
        for number in 0..30 {
            let id = format!("innocent-{number}");
            app.processed(&id, SOON).await;
            assert_eq!(app.effects(&id).await, [1, 1], "{id}");
        }
    });
}

#[test]
fn a_message_of_others_that_kills_its_process_ends_in_the_error_store_too() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        app.set_trap().await;
        let amqp = Amqp::connect(app.amqp_url()).await;
        amqp.publish(QUEUE, BasicProperties::default().with_message_id(POISON.into()), POISON.as_bytes()).await;
        app.killed_and_kept(6).await;
    });
}

#[test]
fn a_message_of_others_that_cannot_be_stored_as_it_is_holds_up_nobody() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let amqp = Amqp::connect(app.amqp_url()).await;
        let nul = || lapin::types::AMQPValue::LongString("a\0b".into());
        // As many as the receiver takes at once.
        for number in 0..20 {
            let mut headers = lapin::types::FieldTable::default();
            headers.insert("x-nul".into(), nul());
            headers.insert("x-fine".into(), lapin::types::AMQPValue::LongString("fine".into()));
            let properties = BasicProperties::default().with_message_id(format!("nul-{number}").into());
            amqp.publish(QUEUE, properties.with_headers(headers), format!("nul {number}").as_bytes()).await;
        }
        assert_eq!(app.post("behind", "behind").await.status, 202);
        app.processed("behind", SOON).await;
        for number in 0..20 {
            app.processed(&format!("nul {number}"), SOON).await;
        }
        app.settled(SOON).await;
    });
}
