//! Texts of others, where people read them: what a function raises, and whatever a database says.

use reqwest::Method;

use crate::support::{App, LONG, Options, SOON, Servers, eventually, run};

const SQL: &str = r"
CREATE TABLE said (text text);
CREATE FUNCTION say(body text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
IF body = 'controls' THEN RAISE EXCEPTION USING MESSAGE = E'a\x1b]0;title\x07\x1b[2J\x01\r\n2026-11-30T00:00:00Z ERROR forged'; END IF;
IF body = 'bidi' THEN RAISE EXCEPTION USING MESSAGE = U&'\202Eabc\2066\2028', HINT = E'h\x1b[31m'; END IF;
IF body = 'long' THEN RAISE EXCEPTION USING MESSAGE = repeat('long ', 400000); END IF;
IF body = 'story' THEN RAISE EXCEPTION USING MESSAGE = repeat('story ', 300); END IF;
IF body = 'emoji' THEN RAISE EXCEPTION USING MESSAGE = repeat(U&'\+01F469\200D\+01F4BB', 1000); END IF;
IF body = 'empty' THEN RAISE EXCEPTION USING MESSAGE = ''; END IF;
IF body = 'words' THEN RAISE EXCEPTION USING MESSAGE = 'role clerk may not SELECT secret FROM vault'; END IF;
INSERT INTO said VALUES (body); END $$;
";

const ADAPTERS: &str = "
adapters:
  - name: sayAsync
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /say } }
      messageLog: { slotId: say-req }
    pipeline:
      - { name: send, amqpSender: { connection: rabbit, destinationName: say } }
  - name: say
    receiver:
      numThreads: 2
      maxRetries: 1
      listener: { amqp: { connection: rabbit, destinationName: say } }
      errorStorage: { slotId: say-err }
    pipeline:
      - { name: say, query: { database: main, sql: 'SELECT say($1)', params: [payload] } }
  - name: sayAtOnce
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /say-at-once } }
      messageLog: { slotId: say-at-once }
    pipeline:
      - { name: say, query: { database: main, sql: 'SELECT say($1)', params: [payload] } }
";

/// An installation that fails as it is told to; not running.
pub async fn installed() -> App {
    let app = App::lay_out(Servers::shared().await, Options::default()).await;
    app.write("configurations/say/adapters.yml", ADAPTERS);
    app.write("configurations/say/migrations/main/V1__say.sql", SQL);
    app.edit_resources("- { name: myQueue,", "- { name: say, retryDelays: [50ms] }\n      - { name: myQueue,");
    app.migrate();
    app
}

async fn started() -> App {
    let mut app = installed().await;
    app.run();
    app.ready(LONG).await;
    app
}

impl App {
    async fn all_in_error(&self, count: usize) -> Vec<i64> {
        eventually("all are in the error store", LONG, async || {
            let found = "SELECT messagekey FROM ibisstore WHERE type = 'E' ORDER BY messagekey";
            let keys: Vec<i64> = self.db.column(found, &[]).await;
            if keys.len() == count { Ok(keys) } else { Err(format!("{}", keys.len())) }
        })
        .await
    }

    fn shown(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What steers a terminal or turns the direction of reading.
fn harmful(text: &str) -> Option<char> {
    let marks = ['\u{202e}', '\u{2066}', '\u{2028}'];
    text.chars().find(|character| (character.is_control() && *character != '\n') || marks.contains(character))
}

#[test]
fn texts_of_failures_are_bounded_and_steer_neither_a_terminal_nor_the_log() {
    run(async {
        let app = started().await;
        let texts = ["controls", "bidi", "long", "emoji", "empty"];
        for text in texts {
            assert_eq!(app.post_to("/api/say", text, text).await.status, 202);
        }
        let keys = app.all_in_error(texts.len()).await;
        let mut shown = vec![app.shown(&["store", "list", "say-err"]), app.shown(&["trace", "controls"])];
        shown.push(app.shown(&["--output", "json", "store", "list", "say-err"]));
        shown.push(app.shown(&["--output", "json", "trace", "bidi"]));
        shown.push(app.shown(&["store", "export", "say-err"]));
        for key in keys {
            shown.push(app.shown(&["store", "show", "say-err", &key.to_string()]));
        }
        for text in &shown {
            assert_eq!(harmful(text), None, "{text}");
        }
        assert!(shown[1].contains(r"\u{1b}]0;title"), "escaped, and not hidden: {}", shown[1]);

        app.log_has("forged").await;
        app.log_has("long long").await;
        let log = app.log_text();
        assert_eq!(harmful(&log), None, "{log}");
        let lines = || log.lines().filter(|line| !line.starts_with("listening "));
        assert!(lines().all(|line| line.starts_with("20") && !line.starts_with("2026-11-30T00:00:00Z ERROR forged")));
        assert!(log.contains(r"\n2026-11-30T00:00:00Z ERROR forged"), "it is told within its line: {log}");
        assert!(log.contains("long long") && lines().all(|line| line.chars().count() < 1500), "{log}");
        let stored: i32 = app.db.one("SELECT max(length(comments)) FROM ibisstore", &[]).await;
        assert!(stored <= 1000, "{stored}");
    });
}

#[test]
fn what_fails_often_is_told_so_many_times_in_a_while_and_then_counted() {
    run(async {
        let app = started().await;
        for number in 0..200 {
            assert_eq!(app.post_to("/api/say", &format!("w-{number}"), "words").await.status, 202);
        }
        app.all_in_error(200).await;
        eventually("how many more there were is told", LONG, async || {
            let told = app.log_lines("log lines were left out");
            if told.len() >= 3 { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
        let figures = app.console(Method::GET, "/metrics").await.body;
        let name = "posthaste_log_lines_dropped_total{reason=\"limit\"} ";
        let left_out: u64 = figures.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap();
        let written =
            ["rolled back", "verdict=\"retry\"", "verdict=\"error store\""].map(|word| app.log_lines(word).len());
        let written = u64::try_from(written.iter().sum::<usize>()).unwrap();
        assert!(left_out >= 300 && written + left_out >= 800, "{written} written, {left_out} not");
        let told: u64 = app.log_lines("log lines were left out").iter().map(|line| lines_of(line)).sum();
        assert!(told <= left_out && told > 0, "{told} of {left_out}");
    });
}

fn lines_of(line: &str) -> u64 {
    let (_, rest) = line.split_once("lines=").unwrap_or_else(|| panic!("{line}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn who_posts_reads_nothing_that_the_database_says_and_the_log_has_it() {
    run(async {
        let app = started().await;
        let failed = app.post_to("/api/say-at-once", "w-1", "words").await;
        assert!(failed.status >= 400, "{failed:?}");
        let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                      RAISE EXCEPTION 'role clerk may not SELECT secret FROM vault'; END $$";
        app.db.rows(refuse, &[]).await;
        let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON ibisstore FOR EACH ROW EXECUTE FUNCTION refuse()";
        app.db.rows(trigger, &[]).await;
        let mut answers = vec![failed];
        for (path, id) in [("/api/say", "w-2"), ("/api/say-at-once", "w-3")] {
            let refused = app.post_to(path, id, "harmless").await;
            refused.problem(503);
            assert_eq!(refused.header("x-outcome"), "none", "{refused:?}");
            answers.push(refused);
        }
        app.db.rows("ALTER TABLE ibisstore RENAME COLUMN messagedate TO vault", &[]).await;
        answers.push(app.api(Method::GET, "/api/messages/say-req/w-2").await);
        app.db.rows("ALTER TABLE ibisstore RENAME COLUMN vault TO messagedate", &[]).await;
        for answer in &answers {
            let text = format!("{:?} {}", answer.headers, answer.body);
            assert!(!["clerk", "vault", "messagedate"].iter().any(|word| text.contains(word)), "{text}");
            assert!(text.contains("SQLSTATE"), "{text}");
        }
        for id in ["w-1", "w-2", "w-3"] {
            eventually("the log has it", SOON, async || {
                let lines = app.log_lines("role clerk may not");
                let told = lines.iter().any(|line| line.contains(&format!("message.id={id}")));
                if told { Ok(()) } else { Err(format!("{id}: {lines:?}")) }
            })
            .await;
        }
    });
}
