//! A connection pooler between Posthaste and PostgreSQL is refused, and said why; and a database that has texts written
//! otherwise is none the worse for it.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use posthaste::dev::free_port;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{App, LONG, Options, SOON, Servers, eventually, run};

/// Ended when it is dropped.
struct Pooler {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    /// Debian's pgbouncer before the server of this url. `more`: lines of its configuration.
    async fn before(url: &str, more: &str) -> Self {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let (user, password) =
            (config.get_user().unwrap(), std::str::from_utf8(config.get_password().unwrap()).unwrap());
        let folder = TempDir::new().unwrap();
        let path = folder.path();
        let port = free_port().unwrap();
        let users = path.join("users.txt");
        std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).unwrap();
        let ini = path.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = plain\nauth_file = {}\n{more}\n",
            config.get_ports()[0],
            users.display()
        );
        std::fs::write(&ini, text).unwrap();
        let mut command = Command::new("/usr/sbin/pgbouncer");
        // It refuses to run as root.
        if nix::unistd::geteuid().is_root() {
            let nobody = User::from_name("nobody").unwrap().unwrap();
            for file in [path, &users, &ini] {
                nix::unistd::chown(file, Some(nobody.uid), Some(nobody.gid)).unwrap();
            }
            command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
        }
        let child = command.arg(&ini).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child =
            child.unwrap_or_else(|error| panic!("/usr/sbin/pgbouncer: {error}; `scripts/setup tests` installs it"));
        let pooler = Self { child, port, _folder: folder };
        eventually("pgbouncer listens", SOON, async || {
            TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        })
        .await;
        pooler
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _gone_already = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _reaped = self.child.wait();
    }
}

impl App {
    /// From its next start on it reaches its database through a pooler like this.
    async fn behind(&self, more: &str) -> Pooler {
        let url = self.db_url();
        let pooler = Pooler::before(&url, more).await;
        let address = url.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        self.edit_resources(&address, &format!("127.0.0.1:{}", pooler.port));
        pooler
    }
}

/// Why sessions behind such a pooler are none.
const SHARED: &str = "two sessions are in the same server process";
const DROPPED: &str = "sessions do not have what they ask for";
const REFUSED: &str = "unsupported startup parameter";

#[test]
fn a_pooler_is_refused_at_the_start_with_the_reason_and_doctor_says_it_as_well() {
    run(async {
        let ignores = "ignore_startup_parameters = options";
        // Whether start-up options are dropped is seen first; where the database itself has them all, the sharing is.
        let ours = "ALTER DATABASE \"{}\" SET lock_timeout = '2s'; ALTER DATABASE \"{}\" SET statement_timeout = '30s';
            ALTER DATABASE \"{}\" SET idle_in_transaction_session_timeout = '90s'";
        for (more, set, reason) in [
            ("pool_mode = transaction".to_owned(), false, REFUSED),
            (format!("pool_mode = transaction\n{ignores}"), false, DROPPED),
            (format!("pool_mode = session\n{ignores}"), false, DROPPED),
            (format!("pool_mode = transaction\n{ignores}"), true, SHARED),
        ] {
            let mut app = App::install(Servers::shared().await, Options::default()).await;
            if set {
                app.db.batch(&ours.replace("{}", app.db.name())).await;
            }
            let _pooler = app.behind(&more).await;
            app.run();
            assert_eq!(app.ended(LONG).await, Some(78), "{more}: {}", app.log_text());
            let log = app.log_text();
            for part in [reason, "postgres entry main", "connect to PostgreSQL directly"] {
                assert!(log.contains(part), "{more}: no {part:?} in {log}");
            }
            let migrated = app.command(&["migrate"]);
            let said = String::from_utf8_lossy(&migrated.stderr).into_owned();
            assert!(migrated.status.code() == Some(78) && said.contains(reason), "{more}: {said}");
            let doctor = app.command(&["doctor", "--output", "json"]);
            let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
            let finding = report["findings"].as_array().unwrap().iter().find(|one| one["check"] == "session-settings");
            let finding = finding.unwrap_or_else(|| panic!("{more}: {report:#}"));
            assert!(finding["level"] == "void" && finding["found"].as_str().unwrap().contains(reason), "{finding:#}");
            assert_eq!(doctor.status.code(), Some(1));
        }
    });
}

#[test]
fn a_session_pooler_that_gives_every_session_its_settings_is_let_through() {
    run(async {
        let mut app = App::install(Servers::shared().await, Options::default()).await;
        let set = "ALTER DATABASE \"{}\" SET lock_timeout = '2s'; ALTER DATABASE \"{}\" SET statement_timeout = '30s';
            ALTER DATABASE \"{}\" SET idle_in_transaction_session_timeout = '90s'";
        app.db.batch(&set.replace("{}", app.db.name())).await;
        let _pooler =
            app.behind("pool_mode = session\nignore_startup_parameters = options\ndefault_pool_size = 100").await;
        app.run();
        app.ready(LONG).await;
        assert_eq!(app.post("1000", "through a pooler").await.status, 202);
        app.processed("through a pooler", SOON).await;
    });
}

/// How PostgreSQL writes and reads texts, each otherwise than by default.
const OTHERWISE: &[&str] = &[
    "quote_all_identifiers = on",
    "standard_conforming_strings = off",
    "escape_string_warning = off",
    "DateStyle = 'German, DMY'",
    "IntervalStyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "array_nulls = off",
    "xmloption = 'document'",
    "backslash_quote = on",
];

#[test]
fn a_database_that_writes_its_texts_otherwise_is_none_the_worse_for_it() {
    run(async {
        let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
        for setting in OTHERWISE {
            app.db.batch(&format!("ALTER DATABASE \"{}\" SET {setting}", app.db.name())).await;
        }
        app.migrate();
        // A default that only the text of its expression gives away: each row's own parent, not the last one's.
        app.db
            .batch(
                "CREATE SEQUENCE parents; ALTER TABLE message ADD COLUMN parent bigint DEFAULT nextval('parents');
                 ALTER TABLE \"otherMessage\" ADD COLUMN parent bigint DEFAULT currval('parents')",
            )
            .await;
        app.run();
        app.ready(LONG).await;
        let posts = (0..200).map(|number| {
            let app = &app;
            async move { app.post(&format!("m-{number}"), &format!("text-{number}")).await.status }
        });
        assert_eq!(futures_util::future::join_all(posts).await, vec![202; 200]);
        app.settled(LONG).await;
        let pairs = "message m JOIN \"otherMessage\" o ON o.message = m.message AND o.parent = m.parent";
        assert_eq!(app.db.count(pairs, &[]).await, 200);
        let proved = app.command(&["prove"]);
        assert!(proved.status.success(), "{proved:?}");
        let doctor = app.command(&["doctor", "--output", "json"]);
        let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        let void: Vec<&Value> =
            report["findings"].as_array().unwrap().iter().filter(|one| one["level"] == "void").collect();
        assert!(void.is_empty(), "{void:#?}");
        let began = std::time::Instant::now();
        assert_eq!(app.stop().await, Some(0));
        assert!(began.elapsed() < Duration::from_secs(30));
    });
}
