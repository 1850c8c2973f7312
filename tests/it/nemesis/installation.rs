//! Two instances of one configuration, each with its own way to the servers, and what is done to them.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

use super::plan::{Blow, Fault, Jump, Plan, Round, Silence};
use crate::load::{ACCUSING, SLOW};
use crate::support::{self, App, Clock, Disk, LONG, Links, Options, Servers, TcpRelay, eventually};

const QUEUE: &str = "myQueue";
/// A quorum queue should be this old before its broker is killed (protocol §8).
const QUEUE_AGE: Duration = Duration::from_secs(2);
/// A few of the instances' heartbeats.
const HEARTBEATS: Duration = Duration::from_secs(3);
/// Another instance has taken over; it noticed.
const FENCED: i32 = 70;

pub struct Installation {
    pub(super) servers: Arc<Servers>,
    pub(super) clock: Clock,
    instances: [Instance; 2],
    pub(super) amqp_url: String,
    /// Of PostgreSQL's disk, in MB.
    room: u64,
    started: Instant,
    counts: std::sync::Mutex<BTreeMap<&'static str, usize>>,
}

struct Instance {
    app: Mutex<App>,
    links: Links,
}

impl Installation {
    /// Both instances accept. The disk of PostgreSQL has room for a load of this length.
    pub async fn start(length: Duration) -> Self {
        let room = 768 + length.as_secs();
        let disk = Disk::mount(room);
        if let Err(why) = &disk {
            eprintln!("a full disk is left out: only root can mount one ({why})");
        }
        let (clock, servers) = Clock::with_servers_on(disk.ok()).await;
        for setting in ["min_wal_size = '32MB'", "max_wal_size = '128MB'"] {
            servers.postgres.lock().await.sql(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
        }
        servers.postgres.lock().await.sql("SELECT pg_reload_conf()").await.unwrap();
        let first = App::install(Arc::clone(&servers), Options::default()).await;
        first.slow_down().await;
        first.accuse().await;
        let (amqp_url, second) = (first.amqp_url().to_owned(), first.sibling());
        let instances = [Instance::start(first).await, Instance::start(second).await];
        sleep(QUEUE_AGE).await;
        Self { servers, clock, instances, amqp_url, room, started: Instant::now(), counts: std::sync::Mutex::default() }
    }

    pub async fn addresses(&self) -> [SocketAddr; 2] {
        let [first, second] = &self.instances;
        [first.app.lock().await.api, second.app.lock().await.api]
    }

    /// One round after the other until the time is over; then all is well again.
    pub async fn suffer(&self, mut plan: Plan, length: Duration) {
        while self.started.elapsed() < length {
            let Round { blows, apart, recovers, rest } = plan.next();
            let second = async {
                if let Some(blow) = blows.get(1) {
                    sleep(apart).await;
                    self.strike(*blow).await;
                }
            };
            tokio::join!(self.strike(blows[0]), second);
            if recovers {
                self.recover().await;
            }
            sleep(rest).await;
        }
        self.recover().await;
        // One that was fenced while it slept or was cut off learns it with its next heartbeat.
        sleep(HEARTBEATS).await;
        self.recover().await;
        self.tell("over");
        for (kind, count) in &*self.counts.lock().unwrap() {
            eprintln!("{count:>5} x {kind}");
        }
    }

    /// Stops the one instance as an operator would, and gives the other with its ways to the servers.
    pub async fn into_last(self) -> (App, Links) {
        let [first, second] = self.instances;
        assert_eq!(first.app.into_inner().stop().await, Some(0));
        (second.app.into_inner(), second.links)
    }

    /// For commands of an operator, and for what is read of its files.
    pub(super) async fn first_app(&self) -> MutexGuard<'_, App> {
        self.instances[0].app.lock().await
    }

    fn tell(&self, what: &str) {
        eprintln!("{:>9.3} s  {what}", self.started.elapsed().as_secs_f64());
    }

    fn happened(&self, kind: &'static str) {
        *self.counts.lock().unwrap().entry(kind).or_default() += 1;
    }

    async fn strike(&self, blow: Blow) {
        if blow.fault == Fault::FillDisk && self.servers.disk.is_none() {
            return;
        }
        self.tell(&blow.to_string());
        self.happened(blow.fault.kind());
        let instance = &self.instances[blow.instance];
        match blow.fault {
            Fault::KillInstance => instance.kill(blow.lasts).await,
            Fault::FreezeInstance => instance.freeze(blow.lasts).await,
            Fault::Redeploy => instance.redeploy(blow.lasts).await,
            Fault::PauseBoth => {
                let [first, second] = &self.instances;
                tokio::join!(first.freeze(blow.lasts), second.freeze(blow.lasts));
            }
            Fault::CutPostgres => instance.links.postgres.cut(),
            Fault::CutAmqp => instance.links.amqp.cut(),
            Fault::SilencePostgres(kind) => silence(&instance.links.postgres, kind, blow.lasts).await,
            Fault::SilenceAmqp(kind) => silence(&instance.links.amqp, kind, blow.lasts).await,
            Fault::StopPostgresImmediately | Fault::KillPostgres | Fault::KillPostmaster => {
                match blow.fault {
                    Fault::KillPostgres => self.servers.kill9_postgres().await,
                    Fault::KillPostmaster => self.servers.kill9_postmaster().await,
                    _ => self.servers.stop_postgres_immediately().await,
                }
                sleep(blow.lasts).await;
                self.servers.start_postgres().await;
            }
            Fault::FillDisk => self.fill_disk(blow.lasts).await,
            Fault::KillRabbit => {
                self.servers.kill9_rabbit().await;
                sleep(blow.lasts).await;
                self.servers.start_rabbit().await;
            }
            Fault::RaiseAlarm => {
                self.servers.watermark("0.0000001").await;
                sleep(blow.lasts).await;
                self.servers.watermark("0.6").await;
            }
            Fault::DeleteQueue => self.delete_queue().await,
            Fault::PurgeQueue => {
                eventually("the queue is purged", LONG, async || support::purge(&self.amqp_url, QUEUE).await).await;
            }
            Fault::RejectPublishes => self.reject_publishes(blow.lasts).await,
            Fault::WithholdConfirms => self.withhold_confirms(blow.lasts).await,
            Fault::JumpClock(Jump(seconds)) => self.jump_clock(seconds, blow.lasts).await,
            Fault::LoseStandby => self.lose_standby(blow.lasts).await,
            Fault::PromoteStandby => self.promote_standby(blow.lasts).await,
            Fault::StartACopy => self.start_a_copy(blow.lasts).await,
        }
    }

    async fn fill_disk(&self, lasts: Duration) {
        let Some(disk) = &self.servers.disk else { return };
        let log = self.servers.postgres.lock().await.log().to_owned();
        let before = fs::read(&log).unwrap().len();
        disk.hold_full(lasts).await;
        let said = String::from_utf8_lossy(&fs::read(&log).unwrap()[before..]).into_owned();
        disk.resize(self.room);
        self.tell(&format!("PostgreSQL missed space {} times", said.matches("No space left on device").count()));
    }

    async fn delete_queue(&self) {
        eventually("the queue is deleted", LONG, async || support::delete(&self.amqp_url, QUEUE).await).await;
        eventually("the queue is made again", LONG, async || support::depth(&self.amqp_url, QUEUE).await).await;
        sleep(QUEUE_AGE).await;
    }

    /// Until all servers run and both instances accept; one that was fenced is started again.
    async fn recover(&self) {
        let began = Instant::now();
        eventually("both instances accept", LONG, async || {
            self.restart_postgres_if_it_gave_up().await;
            for (number, instance) in self.instances.iter().enumerate() {
                let mut app = instance.app.lock().await;
                if let Some(status) = app.has_ended() {
                    assert_eq!(status, Some(FENCED), "instance {number} ended by itself");
                    self.happened("instance fenced");
                    self.tell(&format!("instance {number} was fenced"));
                    app.run();
                }
                app.accepts().await.map_err(|seen| format!("instance {number}: {seen}"))?;
            }
            Ok(())
        })
        .await;
        self.tell(&format!("accepting again after {:.1?}", began.elapsed()));
    }

    /// Without a free block it may end itself: its recovery needs some.
    async fn restart_postgres_if_it_gave_up(&self) {
        let runs = self.servers.postgres.lock().await.pid().is_some();
        if !runs {
            self.tell("PostgreSQL had given up");
            self.happened("PostgreSQL gave up");
            self.servers.start_postgres().await;
        }
    }
}

impl App {
    /// Some messages take up to a second between their two inserts, so that faults fall into transactions.
    async fn slow_down(&self) {
        let function = "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_sleep(random()); RETURN NEW; END'";
        let trigger = format!(
            r#"CREATE TRIGGER dawdle BEFORE INSERT ON "otherMessage" FOR EACH ROW
            WHEN (NEW.message LIKE '%{SLOW}') EXECUTE FUNCTION dawdle()"#
        );
        for statement in [function, &trigger] {
            self.db.rows(statement, &[]).await;
        }
    }
}

impl App {
    /// Some messages raise errors that say that the database is at fault.
    pub async fn accuse(&self) {
        for (number, (ending, sqlstate)) in ACCUSING.iter().enumerate() {
            let function = format!(
                "CREATE FUNCTION accuse{number}() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN RAISE EXCEPTION USING ERRCODE = ''{sqlstate}'', MESSAGE = ''this message accuses the database''; END'"
            );
            let trigger = format!(
                r#"CREATE TRIGGER accuse{number} BEFORE INSERT ON "otherMessage" FOR EACH ROW
                WHEN (NEW.message LIKE '%{ending}') EXECUTE FUNCTION accuse{number}()"#
            );
            for statement in [&function, &trigger] {
                self.db.rows(statement, &[]).await;
            }
        }
    }
}

impl Instance {
    async fn start(mut app: App) -> Self {
        let links = app.behind_relays().await;
        app.run();
        app.ready(LONG).await;
        Self { app: Mutex::new(app), links }
    }

    async fn kill(&self, down: Duration) {
        let mut app = self.app.lock().await;
        let status = app.kill9().await;
        assert!(matches!(status, None | Some(FENCED)), "it had ended by itself: {status:?}");
        sleep(down).await;
        app.run();
    }

    /// As a deployment does it.
    async fn redeploy(&self, down: Duration) {
        let mut app = self.app.lock().await;
        let status = app.stop().await;
        assert!(matches!(status, Some(0 | FENCED)), "it was told to stop: {status:?}");
        sleep(down).await;
        app.run();
    }

    async fn freeze(&self, lasts: Duration) {
        let app = self.app.lock().await;
        app.freeze().await;
        sleep(lasts).await;
        app.thaw();
    }
}

async fn silence(relay: &TcpRelay, kind: Silence, lasts: Duration) {
    relay.stall(kind.direction);
    sleep(lasts).await;
    if kind.ends_in_cut {
        relay.cut();
    }
    relay.resume();
}
