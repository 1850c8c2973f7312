//! Secrets arrive, and are never shown.

use std::fs;

use secrecy::ExposeSecret;

use crate::Files;

#[test]
fn a_password_from_a_file_arrives_whole_and_an_empty_one_is_none() {
    let files = Files::valid().resources("password: hunter2", "password: ${file:secret}");
    fs::write(files.folder.path().join("secret"), "p@ss/w:rd ü\n").unwrap();
    let settings = files.load();
    assert_eq!(settings.postgres[0].password.as_ref().unwrap().expose_secret(), "p@ss/w:rd ü");

    let files = Files::valid().resources("password: hunter2", "password: ${env:PW:-}");
    assert!(files.load().postgres[0].password.is_none());
}

/// Whatever is printed of this must not contain the planted word.
fn assert_hidden(what: &str, shown: &str) {
    assert!(!shown.contains("hunter2"), "{what} shows the secret:\n{shown}");
}

#[test]
fn a_secret_is_never_in_an_error_wherever_it_was_put() {
    let variants = [
        ("password: hunter2", "password: [ hunter2 ]"),
        ("password: hunter2", "password: { hunter2: hunter2 }"),
        ("password: hunter2", "pasword: hunter2"),
        ("password: hunter2", "passwort: \"hunter2\" # was hunter2"),
        ("password: hunter2", "password: |\n      hunter2\n      hunter2\n    unknown: x"),
        ("password: hunter2", "password: a${hunter2}"),
        ("password: hunter2", "password: a${hunter2"),
        ("password: hunter2", "password: hunter2\n    password: hunter2"),
        ("password: hunter2", "password: hunter2: x"),
        ("password: hunter2", "password: 'hunter2"),
        ("password: hunter2", "password: %hunter2"),
        (
            "  - name: main\n    url: postgres://localhost/db\n    username: u\n    password: hunter2",
            "  - { name: main, password: a,hunter2,xhunter2 }",
        ),
        (
            "  - name: main\n    url: postgres://localhost/db\n    username: u\n    password: hunter2",
            "  - { name: main, password: a,hunter2,hunter2 }",
        ),
        ("password: hunter2", "password: &x hunter2\n    poolMaxSize: *x"),
        ("url: postgres://localhost/db", "url: postgres://u:hunter2@localhost:99999/db"),
        ("url: postgres://localhost/db", "url: mysql://u:hunter2@localhost/db"),
        ("url: postgres://localhost/db", "url: postgres://u:hunter2@localhost/db?sslmode=require"),
        ("url: postgres://localhost/db", "url: [ 'postgres://u:hunter2@localhost/db' ]"),
        ("url: amqp://localhost:5672/%2f", "url: amqp://localhost\n    managementUrl: https://u:hunter2@localhost"),
        (
            "url: amqp://localhost:5672/%2f",
            "url: amqp://localhost\n    managementUrl: http://u:hunter2@localhost:99999",
        ),
        ("url: postgres://localhost/db", "url: postgres://localhost/db?user=u&password=hunter2&port=x"),
        ("url: postgres://localhost/db", "url: postgres://localhost/db?user=u&sslmode=require&password=hunter2"),
        ("url: postgres://localhost/db", "url: jdbc:postgresql://localhost/db?user=u&password=hunter2"),
        ("url: postgres://localhost/db", "url: 'jdbc:postgresql:u/hunter2@localhost'"),
        ("url: postgres://localhost/db", "url: host=localhost user=u password=hunter2"),
        ("url: postgres://localhost/db", "url: \"Host=localhost;Username=u;Password=hunter2\""),
        ("url: postgres://localhost/db", "url: postgres:u:hunter2@localhost/db"),
        ("url: postgres://localhost/db", "url: u:hunter2@localhost"),
        ("url: postgres://localhost/db", "url: [ hunter2@localhost ]"),
        ("url: postgres://localhost/db", "url: ${env:NOT_SET}:hunter2@localhost"),
        ("url: postgres://localhost/db", "url: ${env:NOT_SET:-host=localhost password=hunter2}"),
        ("url: postgres://localhost/db", "ulr: u:hunter2@localhost"),
        ("url: postgres://localhost/db", "url: u:hunter2@localhost\n    url: postgres://localhost/db"),
        ("url: postgres://localhost/db", "url: >-\n      host=localhost\n      password=hunter2"),
        ("url: amqp://localhost:5672/%2f", "url: amqps:u:hunter2@localhost"),
        ("url: amqp://localhost:5672/%2f", "url: amqp://localhost\n    managementUrl: localhost:hunter2"),
        (
            "  - name: main\n    url: postgres://localhost/db\n    username: u\n    password: hunter2",
            "  - { name: main, url: host=a,hunter2,xhunter2 }",
        ),
        ("home: main", "home: host=localhost password=hunter2"),
        ("home: main", "home: postgres://u:hunter2@localhost/db"),
        ("- name: main", "- name: ${file:secret}"),
        ("home: main", "home: ${file:secret}"),
        ("home: main", "home: main\n  lease: ${file:secret}"),
    ];
    for (old, new) in variants {
        let files = Files::valid().resources(old, new);
        fs::write(files.folder.path().join("secret"), "hunter2\n").unwrap();
        let error = files.refusal();
        assert_hidden(new, &error.to_string());
        assert_hidden(new, &format!("{error:?}"));
        assert_hidden(new, &serde_json::to_string(&error).unwrap());
    }
}

#[test]
fn the_management_url_may_come_from_a_variable_and_is_never_shown() {
    let url = "url: amqp://localhost:5672/%2f";
    let files = Files::valid().resources(url, &format!("{url}\n    managementUrl: ${{env:MANAGEMENT:-}}"));
    assert!(files.load().amqp[0].management_url.is_none(), "an empty one is none");
    let settings = files.load_with(&|_| Some("http://m:hunter2@localhost:15672".to_owned())).unwrap();
    let read = settings.amqp[0].management_url.as_ref().unwrap().expose_secret();
    assert_eq!(read, "http://m:hunter2@localhost:15672");
    assert_hidden("Settings", &format!("{settings:?}"));
}

#[test]
fn a_secret_is_never_in_the_debug_text_of_the_settings() {
    let files = Files::valid()
        .resources("username: u", "username: ${file:secret}")
        .resources("url: amqp://localhost", "url: amqp://guest:hunter2@localhost")
        .adapters("- name: produce", "- name: produce\n    description: in ${file:../../secret} we trust");
    fs::write(files.folder.path().join("secret"), "hunter2\n").unwrap();
    let settings = files.load();
    assert!(settings.adapters[0].description.as_ref().unwrap().contains("hunter2"), "the value itself arrives");
    assert_hidden("Settings", &format!("{settings:?}"));
    assert_hidden("Settings", &format!("{settings:#?}"));
    assert!(format!("{settings:?}").contains("***"));
}
