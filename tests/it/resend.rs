//! Resending from the error store: truthful, by one operator, on record (protocol §5, F8).

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::Value;

use crate::retry::{ErrorRow, STOPPED};
use crate::support::{App, Reply, SOON, Servers, run};

impl App {
    async fn resend(&self, key: i64) -> Reply {
        self.console(Method::POST, &format!("/api/v1/stores/write-db/messages/{key}/resend")).await
    }

    async fn trace(&self, message_id: &str) -> Value {
        self.get(&format!("/api/v1/messages/{message_id}")).await
    }
}

/// An installation with 1001 in its error store and the adapter that refused it still stopped.
async fn with_1001_in_error() -> (App, ErrorRow) {
    let app = App::start(Servers::shared().await).await;
    app.stop_adapter(STOPPED).await;
    assert_eq!(app.post("1001", "My second message").await.status, 202);
    let row = app.in_error("1001").await;
    (app, row)
}

#[test]
fn a_resend_that_fails_says_so_and_leaves_the_same_row() {
    run(async {
        let (app, before) = with_1001_in_error().await;
        let problem = app.resend(before.key).await.problem(422);
        assert_eq!(problem["outcome"], "failed", "{problem}");
        assert!(problem["step"].as_str().unwrap().contains(STOPPED), "{problem}");
        let reason = problem["reason"].as_str().or(problem["detail"].as_str()).unwrap();
        assert!(reason.to_lowercase().contains("stopped"), "{problem}");

        app.settled(SOON).await;
        let after = app.error_rows().await;
        let [after] = after.as_slice() else { panic!("{after:?}") };
        assert_eq!((after.key, &after.message_id), (before.key, &before.message_id));
        assert_eq!(
            (&after.slot, &after.correlation_id, &after.body),
            (&before.slot, &before.correlation_id, &before.body)
        );
        assert!(after.comments.contains(STOPPED), "{}", after.comments);
        assert_eq!(app.attempts("1001").await.len(), 7);
        let trace = app.trace("1001").await;
        let attempts = trace["messages"][0]["attempts"].as_array().unwrap();
        assert_eq!((attempts.len(), &trace["state"]), (7, &"error".into()), "{trace}");
        assert_eq!(app.effects("My second message").await, [0, 0]);
    });
}

#[test]
fn comments_follow_the_latest_failure() {
    run(async {
        let (app, row) = with_1001_in_error().await;
        // The second failure has another reason than the first.
        app.start_adapter(STOPPED).await;
        app.stop_adapter("writeTableMessage").await;
        app.resend(row.key).await.problem(422);
        let after = app.in_error("1001").await;
        assert_eq!(after.key, row.key);
        assert!(after.comments.contains("writeTableMessage"), "{}", after.comments);
        assert!(!after.comments.contains(STOPPED), "{}", after.comments);
    });
}

#[test]
fn a_resend_that_succeeds_removes_the_row_and_is_on_record() {
    run(async {
        let (app, row) = with_1001_in_error().await;
        app.resend(row.key).await.problem(422);
        app.start_adapter(STOPPED).await;
        let reply = app.resend(row.key).await;
        assert_eq!((reply.status, &reply.json()["outcome"]), (200, &"succeeded".into()), "{reply:?}");

        app.settled(SOON).await;
        assert_eq!(app.error_rows().await, []);
        assert_eq!(app.errors().await, Vec::<Value>::new());
        assert_eq!(app.effects("My second message").await, [1, 1]);
        let audit = "SELECT who FROM posthaste.audit
            WHERE root_id = (SELECT root_id FROM ibisstore WHERE messageid = '1001' AND type = 'A')
              AND what ILIKE '%resend%' AND at > clock_timestamp() - interval '10 minutes' ORDER BY id";
        let who: Vec<String> = app.db.column(audit, &[]).await;
        assert!(who.len() >= 2 && who.iter().all(|name| !name.is_empty()), "{who:?}");
        let trace = app.trace("1001").await;
        assert_eq!(trace["state"], "processed", "{trace}");
        let audited = trace["messages"][0]["audit"].as_array().unwrap();
        assert!(audited.len() >= 2 && audited.iter().all(|entry| entry["at"].is_string()), "{trace}");

        let repeat = app.post("1001", "My second message").await;
        assert_eq!((repeat.status, repeat.body.as_str()), (304, ""));
        app.settled(SOON).await;
        assert_eq!(app.effects("My second message").await, [1, 1]);
    });
}

#[test]
fn of_eight_operators_who_resend_at_once_one_succeeds_and_the_message_takes_effect_once() {
    run(async {
        let (app, row) = with_1001_in_error().await;
        app.start_adapter(STOPPED).await;
        let replies = join_all((0..8).map(|_| app.resend(row.key))).await;
        let won: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 200).collect();
        assert_eq!(won.len(), 1, "{replies:?}");
        assert_eq!(won[0].json()["outcome"], "succeeded");
        for reply in replies.iter().filter(|reply| reply.status != 200) {
            assert!(matches!(reply.status, 404 | 409), "{reply:?}");
            reply.problem(reply.status);
        }
        app.settled(SOON).await;
        assert_eq!(app.error_rows().await, []);
        assert_eq!(app.effects("My second message").await, [1, 1]);
    });
}

#[test]
fn eight_operators_who_resend_in_vain_leave_exactly_one_row() {
    run(async {
        let (app, row) = with_1001_in_error().await;
        let replies = join_all((0..8).map(|_| app.resend(row.key))).await;
        for reply in &replies {
            assert!(matches!(reply.status, 404 | 409 | 422), "{reply:?}");
        }
        assert!(replies.iter().any(|reply| reply.status == 422), "{replies:?}");
        assert_eq!(app.in_error("1001").await.key, row.key);
        assert_eq!(app.effects("My second message").await, [0, 0]);
    });
}

#[test]
fn a_resend_that_was_in_hand_when_the_process_was_killed_ends_in_one_effect_or_one_row() {
    run(async {
        let (mut app, row) = with_1001_in_error().await;
        app.start_adapter(STOPPED).await;
        let url = format!("http://{}/api/v1/stores/write-db/messages/{}/resend", app.console, row.key);
        let request = app.http.post(url).send();
        let killed = async {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            app.kill9().await;
        };
        let (_answer, ()) = tokio::join!(request, killed);
        app.run();
        app.ready(SOON).await;
        app.settled(SOON).await;
        let (effects, errors) = (app.effects("My second message").await, app.error_rows().await);
        assert!(matches!((effects, errors.len()), ([1, 1], 0) | ([0, 0], 1)), "{effects:?}, {errors:?}");
        assert!(errors.iter().all(|after| after.key == row.key), "{errors:?}");
    });
}

#[test]
fn what_is_not_in_the_error_store_cannot_be_resent() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.resend(999_999).await.problem(404);
        assert_eq!(app.post("log", "in the log").await.status, 202);
        app.processed("in the log", SOON).await;
        let key: i64 = app.db.one("SELECT messagekey FROM ibisstore WHERE messageid = 'log'", &[]).await;
        app.resend(key).await.problem(404);
        app.settled(SOON).await;
        assert_eq!(app.effects("in the log").await, [1, 1]);
    });
}
