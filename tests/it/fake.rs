//! The load generator and the judge tried together, on a small service that is honest or faulty on purpose.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::history::{FinalState, Kind, Promise, check};
use crate::load::{self, Load, Stop};
use crate::support::{Application, run};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Every tenth message is accepted and forgotten.
    Loses,
    /// Every tenth message is written into one table only.
    Tears,
    /// Every tenth message is done, and the client told that nothing was.
    LiesAboutNothing,
    /// Repeats are looked for, a moment passes, and then the message is accepted.
    LooksThenInserts,
}

struct Service {
    fault: Fault,
    state: Mutex<(BTreeSet<String>, FinalState)>,
}

async fn write(State(service): State<Arc<Service>>, headers: HeaderMap, body: String) -> Response {
    let id = headers["message-id"].to_str().unwrap().to_owned();
    let known = service.state.lock().unwrap().0.contains(&id);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut state = service.state.lock().unwrap();
    let (ids, end) = &mut *state;
    let duplicate = if service.fault == Fault::LooksThenInserts { known } else { ids.contains(&id) };
    if duplicate {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ids.insert(id.clone());
    let number = ids.len();
    let fault = if number.is_multiple_of(10) { service.fault } else { Fault::None };
    end.logged.push(id);
    if fault != Fault::Loses {
        end.message.push(body.clone());
    }
    if !matches!(fault, Fault::Loses | Fault::Tears) {
        end.other_message.push(body);
    }
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match (fault, number % 10) {
        (Fault::LiesAboutNothing, _) => (unavailable, [("X-Outcome", "none")]).into_response(),
        (_, 3) => (unavailable, [("X-Outcome", "unknown")]).into_response(),
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

/// Half a second of load on a service with this fault; answers the history and what was left.
async fn history_of(fault: Fault) -> (Vec<crate::history::Operation>, FinalState) {
    let service = Arc::new(Service { fault, state: Mutex::default() });
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let target = listener.local_addr().unwrap();
    let router = Router::new().route("/api/write", post(write)).with_state(Arc::clone(&service));
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await });

    let duration = Duration::from_millis(500);
    let load = Load {
        application: Application::WriteDb,
        seed: 7,
        clients: 6,
        duration,
        messages: 1_000,
        pause: Duration::from_millis(2),
        accusing: false,
    };
    let mut log = load::run(&[target], load, Stop::default()).await;
    if fault != Fault::LiesAboutNothing {
        let without = load::settle_unknown(target, load, &mut log, Duration::from_secs(5)).await;
        assert_eq!(without, Vec::<String>::new());
    }
    let end = service.state.lock().unwrap().1.clone();
    (log, end)
}

#[test]
fn an_honest_service_passes_and_the_load_holds_all_kinds_of_posts() {
    run(async {
        let (log, end) = history_of(Fault::None).await;
        let found = check(&log, &end);
        assert!(found.none(), "{found}");
        for promise in [Promise::Accepted, Promise::Duplicate, Promise::Unknown] {
            assert!(log.iter().any(|op| op.answer.promise() == promise), "no {promise:?} among {} posts", log.len());
        }
        let overlapping = log.iter().any(|a| {
            let twin =
                |b: &&crate::history::Operation| b.message_id == a.message_id && b.start < a.end && a.start < b.end;
            log.iter().filter(twin).count() > 1
        });
        assert!(overlapping, "no two posts of one id at once");
    });
}

#[test]
fn each_fault_of_a_service_is_found_from_outside() {
    run(async {
        for (fault, kind) in [
            (Fault::Loses, Kind::Lost),
            (Fault::Tears, Kind::Torn),
            (Fault::LiesAboutNothing, Kind::Phantom),
            (Fault::LooksThenInserts, Kind::TwiceAccepted),
        ] {
            let (log, end) = history_of(fault).await;
            let found = check(&log, &end);
            assert!(found.of(kind) > 0, "{fault:?}:\n{found}");
        }
    });
}

#[test]
fn clients_of_a_service_that_is_not_there_go_on_and_write_it_down() {
    run(async {
        let nobody = SocketAddr::from(([127, 0, 0, 1], posthaste::dev::free_port().unwrap()));
        let duration = Duration::from_millis(300);
        let load = Load {
            application: Application::WriteDb,
            seed: 8,
            clients: 2,
            duration,
            messages: 1_000,
            pause: Duration::from_millis(5),
            accusing: false,
        };
        let log = load::run(&[nobody], load, Stop::default()).await;
        assert!(log.len() > 4, "{log:?}");
        assert!(log.iter().all(|op| matches!(op.answer.promise(), Promise::Nothing | Promise::Unknown)), "{log:?}");
        let found = check(&log, &FinalState::default());
        assert!(found.none(), "{found}");
    });
}
