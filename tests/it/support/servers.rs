//! A private PostgreSQL and a private RabbitMQ. Most tests share a pair; tests that stop servers have their own.

use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use posthaste::dev::{self, DevError, PrivatePostgres, PrivateRabbit};
use tokio::sync::{Mutex, OnceCell};

use super::{Disk, LONG, SOON, eventually};

pub struct Servers {
    pub postgres: Mutex<PrivatePostgres>,
    pub rabbit: Mutex<PrivateRabbit>,
    /// Where PostgreSQL's data are, when not in the usual place. It outlives the server.
    pub disk: Option<Disk>,
}

impl Servers {
    /// The pair that all tests of this binary share. It ends with the process.
    pub async fn shared() -> Arc<Self> {
        static SHARED: OnceCell<Arc<Servers>> = OnceCell::const_new();
        Arc::clone(SHARED.get_or_init(Self::own).await)
    }

    /// A pair of one's own, to stop and to kill.
    pub async fn own() -> Arc<Self> {
        Self::started(dev::Options::default(), None).await
    }

    /// The same, started otherwise.
    pub async fn own_with(options: dev::Options) -> Arc<Self> {
        Self::started(options, None).await
    }

    /// The same, and PostgreSQL has its data on this disk.
    pub async fn started(options: dev::Options, disk: Option<Disk>) -> Arc<Self> {
        let keep = disk.as_ref().map(|disk| disk.folder().to_owned());
        let on_disk = dev::Options { keep: keep.or_else(|| options.keep.clone()), ..options.clone() };
        let started = tokio::try_join!(PrivatePostgres::start(&on_disk), PrivateRabbit::start(&options));
        let (postgres, rabbit) = started.unwrap_or_else(|error| panic!("no private servers: {error}"));
        Arc::new(Self { postgres: Mutex::new(postgres), rabbit: Mutex::new(rabbit), disk })
    }

    pub async fn stop_postgres(&self) {
        self.postgres.lock().await.stop().await.unwrap();
    }

    /// The machine is gone: every process of it at once.
    pub async fn kill9_postgres(&self) {
        self.postgres.lock().await.kill9().await.unwrap();
    }

    /// `pg_ctl stop --mode immediate`: it leaves without a checkpoint, and recovers at the next start.
    pub async fn stop_postgres_immediately(&self) {
        self.end_postmaster(Signal::SIGQUIT).await;
    }

    /// The postmaster alone: its backends may finish what they are at, and notice.
    pub async fn kill9_postmaster(&self) {
        self.end_postmaster(Signal::SIGKILL).await;
    }

    async fn end_postmaster(&self, how: Signal) {
        let mut postgres = self.postgres.lock().await;
        let pid = postgres.pid().expect("it does not run");
        kill(Pid::from_raw(pid.cast_signed()), how).unwrap();
        let gone = async || if postgres.pid().is_none() { Ok(()) } else { Err("it runs".to_owned()) };
        eventually("the postmaster ends", SOON, gone).await;
    }

    pub async fn start_postgres(&self) {
        let mut postgres = self.postgres.lock().await;
        // It refuses while a backend of before is at work.
        let start = async || match postgres.start_again().await {
            Ok(()) => Ok(()),
            Err(DevError::EndedEarly { log, .. }) if log.contains("is still in use") => Err(log),
            Err(error) => panic!("{error}"),
        };
        eventually("PostgreSQL starts", LONG, start).await;
    }

    pub async fn stop_rabbit(&self) {
        self.rabbit.lock().await.stop().await.unwrap();
    }

    pub async fn kill9_rabbit(&self) {
        self.rabbit.lock().await.kill9().await.unwrap();
    }

    pub async fn start_rabbit(&self) {
        self.rabbit.lock().await.start_again().await.unwrap();
    }

    /// The share of the machine's memory beyond which RabbitMQ blocks its publishers.
    pub async fn watermark(&self, fraction: &str) {
        let set = format!("vm_memory_monitor:set_vm_memory_high_watermark({fraction})");
        assert_eq!(self.rabbit.lock().await.eval(&set).await.unwrap(), "ok");
    }
    /// How many commands a quorum queue has replicated since it was declared.
    pub async fn commands(&self, amqp_url: &str, queue: &str) -> i64 {
        let vhost = amqp_url.rsplit('/').next().unwrap();
        let status = format!("hd(rabbit_quorum_queue:status(<<\"{vhost}\">>, <<\"{queue}\">>))");
        let asked = format!("proplists:get_value(<<\"Commit Index\">>, {status})");
        let said = self.rabbit.lock().await.eval(&asked).await.unwrap();
        said.parse().unwrap_or_else(|_| panic!("{said}"))
    }
}
