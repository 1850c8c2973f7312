//! One case: something goes wrong at one point, the installation goes on, and the invariants are judged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use posthaste::txn::faults::Point;

use crate::instance::{Armed, Fault, Instance};
use crate::messages::Messages;
use crate::outside;
use crate::site::{Ground, QUEUES, Site};
use crate::support::{LONG, eventually};
use crate::verdict::Torn;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The call returns an error.
    Error,
    /// The task that is there panics.
    Panic,
    /// The process is gone.
    Exit,
    /// The process stands still until others have fenced it, and goes on then.
    Stop,
    /// Its connections are cut both ways.
    Cut,
    /// What the point means comes from elsewhere.
    Outside,
    /// So it does, and the connections to the databases are cut with it, as in a fail-over.
    Severed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub point: Point,
    pub kind: Kind,
    /// The point is met the how many-th time.
    pub nth: u32,
    /// An instance has died at the same point before, and this one recovers what it left.
    pub in_recovery: bool,
    /// In a transaction that several messages share, in all three databases.
    pub group: bool,
}

/// Until a point is met that no message leads to.
const HIT: Duration = Duration::from_secs(45);
/// The shortest time that a process stands still.
const STANDS_STILL: Duration = Duration::from_secs(5);

impl Case {
    pub const fn first(point: Point, kind: Kind) -> Self {
        Self { point, kind, nth: 1, in_recovery: false, group: false }
    }

    pub const fn in_recovery(point: Point, kind: Kind) -> Self {
        Self { in_recovery: true, ..Self::first(point, kind) }
    }

    pub const fn in_group(point: Point, kind: Kind) -> Self {
        Self { group: true, ..Self::first(point, kind) }
    }

    pub fn name(&self) -> String {
        let Self { point, kind, nth, in_recovery, group } = self;
        let recovery = if *in_recovery { ":in-recovery" } else { "" };
        let group = if *group { ":group" } else { "" };
        let nth = if *nth == 1 { String::new() } else { format!(":{nth}") };
        format!("{}:{kind:?}{nth}{group}{recovery}", short(*point)).to_lowercase()
    }

    /// Which messages lead there.
    fn queue(&self) -> &'static str {
        let home_alone = short(self.point).starts_with("GR") || short(self.point).starts_with("DQ");
        if home_alone && !self.group { "one" } else { "three" }
    }

    /// Whether messages must wait for each other to get there: only then do they form groups.
    fn groups(&self) -> bool {
        self.group || short(self.point).starts_with("GR")
    }

    fn batches_at_once(&self) -> usize {
        if self.groups() { 12 } else { 1 }
    }

    fn recovers(&self) -> bool {
        short(self.point).starts_with("RC")
    }

    /// Whether a second instance runs from the beginning. Where only one of two would get to the point, it comes later.
    fn together(&self) -> bool {
        !(self.recovers()
            || self.groups()
            || self.in_recovery
            || matches!(self.point, Point::IN7 | Point::IN9 | Point::DQ8))
    }

    const fn armed_with(&self) -> &'static str {
        match self.kind {
            Kind::Error => "error",
            Kind::Panic => "panic",
            Kind::Exit => "exit",
            Kind::Stop => "stop",
            Kind::Cut | Kind::Outside | Kind::Severed => "wait",
        }
    }

    pub async fn run(self, ground: Arc<Ground>) {
        let site = Site::lay_out(ground, self.name()).await;
        let messages = Messages::default();
        if self.recovers() {
            die_at(&site, &messages, Point::MD5, self).await;
        }
        if self.point == Point::DQ8 {
            // What comes back after a death is noted.
            die_at(&site, &messages, if self.group { Point::MD1 } else { Point::DQ1 }, self).await;
        }
        if self.in_recovery {
            die_at(&site, &messages, self.point, self).await;
            // Databases are recovered side by side: it may have finished everything.
            if self.recovers() && site.prepared().await.is_empty() {
                die_at(&site, &messages, Point::MD5, self).await;
            }
        }
        let Self { point, nth, group, .. } = self;
        let armed = Armed { point, kind: self.armed_with(), nth, group };
        let armed = site.armed(Fault::At(armed)).await;
        let healthy = site.healthy().await;
        armed.run();
        if self.together() {
            healthy.run();
            healthy.ready().await;
        }
        let torn = self.go_wrong(&site, &messages, &armed, &healthy).await;
        if !healthy.runs() {
            healthy.run();
        }
        if self.kind == Kind::Exit {
            armed.disarm();
            armed.run();
        }
        if armed.runs() {
            armed.ready().await;
        }
        healthy.ready().await;
        for queue in QUEUES {
            messages.send(&healthy, queue).await;
        }
        messages.repeat_unknown(&healthy).await;
        if self.kind == Kind::Outside {
            outside::was_told(self.point, &messages);
        }
        site.quiet(&[&armed, &healthy]).await;
        site.judge(&messages, &torn, false).await;
        site.resend_all(&healthy).await;
        site.quiet(&[&armed, &healthy]).await;
        // What it holds unacknowledged comes to the other one, which knows it.
        armed.stop().await;
        site.queues_are_empty(&healthy).await;
        healthy.stop().await;
        site.judge(&messages, &torn, true).await;
        let proof = healthy.command(&["prove"]).await;
        assert!(proof.status.success(), "{}: {proof:?}", self.name());
        site.leave().await;
    }

    async fn go_wrong(&self, site: &Site, messages: &Messages, armed: &Instance, healthy: &Instance) -> Torn {
        if self.recovers() {
            armed.hit(HIT).await;
            return self.act(site, armed, healthy).await;
        }
        armed.ready_or_hit().await;
        if (self.point, self.kind) == (Point::IN7, Kind::Outside) {
            for adapter in QUEUES {
                armed.act(&format!("/api/v1/adapters/{adapter}/stop")).await.unwrap();
            }
        }
        // Clients wait for their answers meanwhile.
        let (torn, ()) = tokio::join!(
            self.act(site, armed, healthy),
            messages.send_until_hit(armed, self.queue(), self.batches_at_once())
        );
        torn
    }

    async fn act(&self, site: &Site, armed: &Instance, healthy: &Instance) -> Torn {
        armed.hit(HIT).await;
        match self.kind {
            Kind::Error | Kind::Panic => {}
            Kind::Exit => armed.was_killed().await,
            Kind::Stop => self.wake_as_a_zombie(site, armed, healthy).await,
            Kind::Cut => outside::cut(site, armed).await,
            Kind::Outside => return outside::happen(site, armed, self.point).await,
            Kind::Severed => {
                site.postgres_relay.cut();
                return outside::happen(site, armed, self.point).await;
            }
        }
        Torn::default()
    }

    /// It stands still for longer than its lease, others take over, and then it goes on with what it was about to do.
    async fn wake_as_a_zombie(&self, site: &Site, armed: &Instance, healthy: &Instance) {
        let since = Instant::now();
        if !healthy.runs() {
            healthy.run();
        }
        let pid = armed.pid();
        eventually(&format!("{}: it is fenced", self.name()), LONG, async || {
            let live = "posthaste.instance WHERE pid = $1 AND state = 'LIVE'";
            let live = site.home().count(live, &[&pid]).await;
            if live == 0 { Ok(()) } else { Err("still live".to_owned()) }
        })
        .await;
        tokio::time::sleep(STANDS_STILL.saturating_sub(since.elapsed())).await;
        armed.signal(Signal::SIGCONT);
        armed.was_fenced(armed.ended(LONG).await);
    }
}

/// The protocol's name.
pub fn short(point: Point) -> &'static str {
    point.name().trim_start_matches("fault-point-")
}

/// An instance that dies at a point and leaves what it had begun.
async fn die_at(site: &Site, messages: &Messages, point: Point, case: Case) {
    let dying = site.armed(Fault::At(Armed { point, kind: "exit", nth: 1, group: case.group })).await;
    dying.run();
    dying.ready_or_hit().await;
    messages.send_until_hit(&dying, case.queue(), case.batches_at_once()).await;
    dying.was_killed().await;
}
