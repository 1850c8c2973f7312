//! docker-compose.yml says the same as resources.yml and keeps to the rules it was written by.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

#[test]
fn both_posthaste_services_set_exactly_the_variables_that_resources_yml_reads() {
    let read = variables_in(&repository_file("resources.yml"));
    assert!(read.contains("DB_HOST"), "{read:?}");
    let compose = compose();
    for service in ["migrate", "posthaste"] {
        let set = compose["services"][service]["environment"].as_object().unwrap();
        assert_eq!(set.keys().cloned().collect::<BTreeSet<_>>(), read, "{service}");
    }
}

#[test]
fn posthaste_logs_in_with_the_users_that_the_servers_are_given() {
    let services = &compose()["services"];
    let (posthaste, postgres) = (&services["posthaste"]["environment"], &services["postgres"]["environment"]);
    let rabbitmq = &services["rabbitmq"]["environment"];
    assert_eq!(posthaste["DB_HOST"], "postgres");
    assert_eq!(posthaste["DB_USER"], postgres["POSTGRES_USER"]);
    assert_eq!(posthaste["DB_PASSWORD"], postgres["POSTGRES_PASSWORD"]);
    assert_eq!(posthaste["AMQP_HOST"], "rabbitmq");
    assert_eq!(posthaste["AMQP_USER"], rabbitmq["RABBITMQ_DEFAULT_USER"]);
    assert_eq!(posthaste["AMQP_PASSWORD"], rabbitmq["RABBITMQ_DEFAULT_PASS"]);
    assert_ne!(posthaste["AMQP_USER"], "guest", "RabbitMQ lets guest in from its own loopback only");
    let database = format!("/{}", postgres["POSTGRES_DB"].as_str().unwrap());
    let resources = repository_file("resources.yml");
    let url = resources.lines().find_map(|line| line.split_once("url: postgres://")).unwrap().1;
    assert!(url.split(' ').next().unwrap().ends_with(&database), "{url}");
}

#[test]
fn the_schema_is_migrated_before_the_engine_runs_and_after_the_servers_are_healthy() {
    let services = &compose()["services"];
    assert_eq!(services["migrate"]["command"][0], "migrate");
    assert_eq!(services["posthaste"]["command"][0], "run");
    assert_eq!(services["posthaste"]["depends_on"]["migrate"]["condition"], "service_completed_successfully");
    for server in ["postgres", "rabbitmq"] {
        assert!(services[server]["healthcheck"]["test"].is_array(), "{server} has a health check");
        assert_eq!(services["migrate"]["depends_on"][server]["condition"], "service_healthy");
    }
    assert!(services["postgres"]["command"].to_string().contains("max_prepared_transactions=64"));
}

#[test]
fn nothing_is_published_beyond_loopback_and_posthaste_is_not_root() {
    let compose = compose();
    for (name, service) in compose["services"].as_object().unwrap() {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
    }
    let dockerfile = repository_file("Dockerfile");
    for service in ["migrate", "posthaste"] {
        let user = compose["services"][service]["user"].as_str().unwrap();
        assert!(!user.starts_with('0') && dockerfile.contains(&format!("\nUSER {user}\n")), "{service} runs as {user}");
    }
}

#[test]
fn the_console_is_reached_under_the_published_name_alone() {
    let environment = &compose()["services"]["posthaste"]["environment"];
    assert_eq!(environment["CONSOLE_HOST"], "localhost:8081");
    assert!(repository_file("resources.yml").contains(r#"hosts: [ "${env:CONSOLE_HOST:-localhost}" ]"#));
}

#[test]
fn the_image_is_built_with_the_rust_version_of_the_package() {
    let package = repository_file("Cargo.toml");
    let version =
        package.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap().trim_end_matches('"');
    let dockerfile = repository_file("Dockerfile");
    assert!(dockerfile.contains(&format!("FROM rust:{version}.")), "rust-version is {version}");
}

#[test]
fn the_health_check_tells_ready_from_not_ready_and_from_nobody_there() {
    for (answer, healthy) in [("200 OK", true), ("503 Service Unavailable", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request: Vec<String> =
                BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").unwrap();
            request
        });
        assert_eq!(is_healthy(port), healthy, "{answer}");
        let request = server.join().unwrap();
        assert_eq!(request[..2], ["GET /readyz HTTP/1.1".to_owned(), format!("Host: 127.0.0.1:{port}")]);
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(!is_healthy(nobody));
}

fn is_healthy(port: u16) -> bool {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/healthcheck");
    Command::new(script).env("CONSOLE_LISTEN", format!("0.0.0.0:{port}")).output().unwrap().status.success()
}

fn repository_file(name: &str) -> String {
    fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn compose() -> Value {
    serde_saphyr::from_str(&repository_file("docker-compose.yml")).unwrap()
}

/// The names in `${env:NAME}` and `${env:NAME:-default}`.
fn variables_in(text: &str) -> BTreeSet<String> {
    let names = text.split("${env:").skip(1).map(|rest| rest.split([':', '}']).next().unwrap().to_owned());
    names.collect()
}
