use super::*;
use crate::config;

fn settings(adapters: &str) -> Settings {
    let folder = tempfile::tempdir().unwrap();
    let configuration = folder.path().join("configurations/demo");
    std::fs::create_dir_all(&configuration).unwrap();
    let resources = "instance: { home: main }
postgres: [ { name: main, url: postgres://localhost/a } ]
amqp: [ { name: rabbit, url: amqp://localhost, createDestination: true } ]
";
    std::fs::write(folder.path().join("resources.yml"), resources).unwrap();
    std::fs::write(configuration.join("adapters.yml"), adapters).unwrap();
    let (resources, all) = (folder.path().join("resources.yml"), folder.path().join("configurations"));
    config::load(&resources, &all, &|_| None).unwrap_or_else(|error| panic!("{error}"))
}

const ADAPTERS: &str = "adapters:
  - name: accepts
    receiver:
      listener: { api: { uriPattern: /a } }
      messageLog: { slotId: a, retention: 1h }
    pipeline: [ { name: go, call: { adapter: sends } } ]
  - name: sends
    pipeline: [ { name: send, amqpSender: { connection: rabbit, destinationName: one } } ]
  - name: first
    receiver:
      maxRetries: 3
      retryScheme: 1sx1,10sx1
      numThreads: 5
      transactionTimeout: 20s
      listener: { amqp: { connection: rabbit, destinationName: one } }
    pipeline: [ { name: go, call: { adapter: writes } } ]
  - name: second
    receiver: { numThreads: 3, listener: { amqp: { connection: rabbit, destinationName: two } } }
    pipeline: [ { name: go, call: { adapter: writes } } ]
  - name: writes
    pipeline: [ { name: q, query: { database: main, sql: SELECT 1 } } ]
";

#[test]
fn the_horizon_is_all_waits_and_all_attempts_of_the_receiver_behind_the_calls() {
    let settings = settings(ADAPTERS);
    // Waits of 1 s, 10 s and 10 s again; four attempts of 20 s.
    let horizon = Duration::from_secs(21 + 80);
    assert_eq!(super::horizon(&settings.receivers[0]), horizon);
    let memory = Memory { adapter: AdapterName::new("accepts"), retention: Duration::from_secs(3600), horizon };
    assert_eq!(memories(&settings), [memory]);
}

#[test]
fn a_log_without_a_receiver_behind_it_has_no_horizon() {
    let adapters = ADAPTERS.replacen("destinationName: one } } ]", "destinationName: theirs } } ]", 1);
    assert_ne!(adapters, ADAPTERS);
    assert_eq!(memories(&settings(&adapters)), []);
}
