//! Who reads the log may stand still: a log shipper that hangs, a pager that waits. Nobody waits for him.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use futures_util::future::join_all;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use reqwest::Method;

use crate::foreign_text::installed;
use crate::support::{App, LONG, SOON, eventually, run};

/// The reader's end of a small pipe that stands where the log file would.
struct Reader {
    pipe: File,
    read: String,
}

impl Reader {
    fn of(app: &App) -> Self {
        nix::unistd::mkfifo(&app.log_file(), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let pipe = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(app.log_file()).unwrap();
        fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        Self { pipe, read: String::new() }
    }

    /// Reads what is there, and waits for nothing.
    fn go_on(&mut self) {
        let mut bytes = Vec::new();
        let error = self.pipe.read_to_end(&mut bytes).err();
        assert!(error.as_ref().is_none_or(|error| error.kind() == ErrorKind::WouldBlock), "{error:?}");
        self.read.push_str(&String::from_utf8_lossy(&bytes));
    }
}

impl App {
    /// Posts messages whose failures are long stories, until so many lines were dropped.
    async fn chatters_until_dropped(&self, round: &str, at_least: u64) {
        let mut posts = 0;
        let dropped = async || {
            let ids = (posts..posts + 40).map(|number| format!("{round}-{number}")).collect::<Vec<_>>();
            let replies = join_all(ids.iter().map(|id| self.post_to("/api/say-at-once", id, "story"))).await;
            assert!(replies.iter().all(|reply| reply.status == 500), "{replies:?}");
            posts += 40;
            let dropped = self.dropped().await;
            if dropped >= at_least { Ok(()) } else { Err(format!("{dropped} after {posts}")) }
        };
        eventually("lines are dropped", LONG, dropped).await;
    }

    async fn dropped(&self) -> u64 {
        let figures = self.console(Method::GET, "/metrics").await.body;
        let name = "posthaste_log_lines_dropped_total{reason=\"unread\"} ";
        let line = figures.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name}in {figures}")).parse().unwrap()
    }
}

/// A running instance, and the reader of its log, who stands still until he is asked to go on.
async fn read_slowly() -> (App, Reader) {
    let mut app = installed().await;
    let reader = Reader::of(&app);
    app.run_with(&["--log", "debug"]);
    // Whatever else looks for a log would wait for it.
    fs::remove_file(app.log_file()).unwrap();
    app.ready(LONG).await;
    (app, reader)
}

#[test]
fn nothing_waits_for_a_reader_of_the_log_and_he_is_told_how_many_lines_he_missed() {
    run(async {
        let (mut app, mut reader) = read_slowly().await;
        app.chatters_until_dropped("first", 1).await;
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(app.console(Method::GET, path).await.status, 200, "{path}");
        }
        assert_eq!(app.post_to("/api/say", "other", "harmless").await.status, 202);
        app.settled(LONG).await;
        assert_eq!(app.db.count("said", &[]).await, 1);
        eventually("he is told", SOON, async || {
            reader.go_on();
            let told = reader.read.lines().find(|line| line.contains("log lines were dropped"));
            told.map(|_| ()).ok_or_else(|| reader.read.lines().last().unwrap_or_default().to_owned())
        })
        .await;

        let more = app.dropped().await + 1;
        app.chatters_until_dropped("second", more).await;
        assert_eq!(app.stop().await, Some(0), "nor does a stop wait");
    });
}

#[test]
fn an_instance_that_cannot_go_on_ends_though_nobody_reads_why() {
    run(async {
        let (mut app, _reader) = read_slowly().await;
        app.chatters_until_dropped("some", 1).await;
        // Fenced by another: it must end, so that whoever looks after it starts it anew.
        app.db.rows("UPDATE posthaste.instance SET state = 'FENCED', fenced_at = clock_timestamp()", &[]).await;
        assert_eq!(app.ended(LONG).await, Some(70));
    });
}
