//! Figures of what waits for a person, of adapters and of how long messages take.

use std::time::{Duration, Instant};

use reqwest::Method;

use crate::support::{App, LONG, SOON, Servers, eventually, run, same};

impl App {
    /// The figure with these labels, in whatever order.
    async fn figure_of(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let page = self.console(Method::GET, "/metrics").await.body;
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let of = |line: &str| {
            let (found, rest) = line.split_once('{')?;
            let (found_labels, value) = rest.rsplit_once("} ")?;
            let same = found == name
                && found_labels.split(',').count() == labels.len()
                && labels.iter().all(|label| found_labels.split(',').any(|one| one == label));
            same.then(|| value.parse().unwrap())
        };
        page.lines().find_map(of)
    }

    async fn becomes(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        let what = format!("{name} {labels:?} is {wanted}");
        eventually(&what, LONG, async || same(self.figure_of(name, labels).await, &Some(wanted))).await;
    }
}

#[test]
fn accepting_and_processing_are_timed_from_the_first_message_on() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let (inbound, receiver) = ([("adapter", "writeDbAsync")], [("adapter", "writeDb")]);
        app.becomes("posthaste_accept_seconds_count", &inbound, 0.0).await;
        app.becomes("posthaste_accepted_to_done_seconds_count", &receiver, 0.0).await;
        let began = Instant::now();
        assert_eq!(app.post("one", "one").await.status, 202);
        let took = began.elapsed();
        app.becomes("posthaste_accept_seconds_count", &inbound, 1.0).await;
        let sum = app.figure_of("posthaste_accept_seconds_sum", &inbound).await.unwrap();
        assert!(sum > 0.0 && sum <= took.as_secs_f64(), "{sum} s of {took:?}");
        app.becomes("posthaste_accepted_to_done_seconds_count", &receiver, 1.0).await;
        for (name, adapter) in [
            ("posthaste_accept_seconds_bucket", "writeDbAsync"),
            ("posthaste_accepted_to_done_seconds_bucket", "writeDb"),
        ] {
            assert_eq!(app.figure_of(name, &[("adapter", adapter), ("le", "7200")]).await, Some(1.0));
            assert_eq!(app.figure_of(name, &[("adapter", adapter), ("le", "+Inf")]).await, Some(1.0));
        }
        // What is not accepted is not timed.
        assert_eq!(app.post("one", "one").await.status, 304);
        assert_eq!(app.figure_of("posthaste_accept_seconds_count", &inbound).await, Some(1.0));
    });
}

#[test]
fn what_waits_until_it_is_done_is_timed_from_its_acceptance_on() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.stop_adapter("writeDb").await;
        let began = Instant::now();
        assert_eq!(app.post("one", "one").await.status, 202);
        let accepted = Instant::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let waited = accepted.elapsed();
        app.start_adapter("writeDb").await;
        app.processed("one", SOON).await;
        let receiver = [("adapter", "writeDb")];
        app.becomes("posthaste_accepted_to_done_seconds_count", &receiver, 1.0).await;
        let sum = app.figure_of("posthaste_accepted_to_done_seconds_sum", &receiver).await.unwrap();
        // The database's clock is read once a second, and the reading is as exact as its answer is quick.
        let (least, most) = (waited.as_secs_f64() - 1.0, began.elapsed().as_secs_f64() + 1.0);
        assert!(sum >= least && sum <= most, "{least} <= {sum} <= {most}");
    });
}

#[test]
fn an_adapter_is_in_one_state() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let state =
            async |state| app.figure_of("posthaste_adapter_state", &[("adapter", "writeDb"), ("state", state)]).await;
        app.becomes("posthaste_adapter_state", &[("adapter", "writeDb"), ("state", "STARTED")], 1.0).await;
        app.stop_adapter("writeDb").await;
        for one in ["STARTING", "STARTED", "STOPPING", "ERROR"] {
            assert_eq!(state(one).await, Some(0.0), "{one}");
        }
        assert_eq!(state("STOPPED").await, Some(1.0));
    });
}

/// So many errors of a slot.
const ERRORS: &str = "INSERT INTO ibisstore (type, slotid, messageid, message, tx_id, root_id, sha256, messagedate)
    SELECT 'E', 'write-db', 'id-' || n, '', gen_random_uuid(), gen_random_uuid(), '', clock_timestamp() - interval '1 hour'
    FROM generate_series(1, $1::int4) n";

#[test]
fn error_stores_have_a_depth_and_an_age_and_no_more_than_a_hundred_thousand_are_counted() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let errors = [("slot", "write-db"), ("type", "E")];
        app.becomes("posthaste_error_store_messages", &errors, 0.0).await;
        assert_eq!(app.figure_of("posthaste_error_store_oldest_seconds", &errors).await, Some(0.0));
        app.db.rows(ERRORS, &[&3]).await;
        app.becomes("posthaste_error_store_messages", &errors, 3.0).await;
        let oldest = app.figure_of("posthaste_error_store_oldest_seconds", &errors).await.unwrap();
        assert!((3600.0..7200.0).contains(&oldest), "{oldest}");
        app.becomes("posthaste_error_store_messages", &[("slot", "write-db"), ("type", "H")], 0.0).await;

        app.db.rows(ERRORS, &[&100_000]).await;
        app.becomes("posthaste_error_store_messages", &errors, 100_000.0).await;
        app.db.rows("DELETE FROM ibisstore WHERE type = 'E'", &[]).await;
        app.becomes("posthaste_error_store_messages", &errors, 0.0).await;
        app.becomes("posthaste_error_store_oldest_seconds", &errors, 0.0).await;
    });
}
