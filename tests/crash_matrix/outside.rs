//! What comes from outside while the instance stands at a point.

use std::time::Duration;

use nix::sys::signal::Signal;
use posthaste::txn::faults::Point;

use crate::instance::Instance;
use crate::messages::{Messages, Told};
use crate::site::{QUEUES, Site};
use crate::support::{LONG, delete, eventually};
use crate::verdict::Torn;

/// So long a server is away.
const AWAY: Duration = Duration::from_secs(2);
/// PostgreSQL itself says so when a disk is full.
const DISK_FULL: &str = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$";

/// Whether a point is met by something that happens elsewhere.
pub fn comes_from_outside(point: Point) -> bool {
    matches!(
        point,
        Point::IN6
            | Point::IN7
            | Point::IN8
            | Point::IN10
            | Point::DQ6
            | Point::DQ7
            | Point::MD6
            | Point::MD7
            | Point::MD9
    )
}

/// Whether it harms a server that all cases share.
pub fn harms_everybody(point: Point) -> bool {
    point == Point::IN6
}

/// Does it, and lets the instance go on.
pub async fn happen(site: &Site, armed: &Instance, point: Point) -> Torn {
    match point {
        Point::IN6 => {
            site.ground.postgres.lock().await.kill9().await.unwrap();
            site.ground.postgres.lock().await.start_again().await.unwrap();
            armed.go_on();
        }
        Point::IN7 => lose_queues(site, armed).await,
        Point::IN8 => cut_off_from_the_broker(site, armed).await,
        Point::IN10 => fill_the_disk(site, armed).await,
        Point::DQ6 | Point::MD7 => away(site, armed, "main").await,
        Point::MD6 => away(site, armed, "a").await,
        Point::DQ7 => {
            // Its delivery goes down with the queue; the row is all that is left.
            delete(&site.amqp_url, "one").await.unwrap();
            armed.signal(Signal::SIGKILL);
            armed.was_killed().await;
        }
        Point::MD9 => return lose_a_branch(site, armed).await,
        _ => panic!("nothing is told about {}", point.name()),
    }
    Torn::default()
}

/// What clients must have been told meanwhile.
pub fn was_told(point: Point, messages: &Messages) {
    if point == Point::IN10 {
        let refused = messages.all().iter().any(|message| message.told == Told::Refused);
        assert!(refused, "nobody was refused while the disk was full");
    }
}

/// Connections are cut both ways, and for a moment there are no new ones.
pub async fn cut(site: &Site, armed: &Instance) {
    for relay in [&site.postgres_relay, &site.amqp_relay] {
        relay.refuse(true);
        relay.cut();
    }
    armed.go_on();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for relay in [&site.postgres_relay, &site.amqp_relay] {
        relay.refuse(false);
    }
}

async fn away(site: &Site, armed: &Instance, database: &str) {
    site.close(database).await;
    armed.go_on();
    tokio::time::sleep(AWAY).await;
    site.open(database).await;
}

/// Confirmed messages that nobody has consumed are gone with their queues.
async fn lose_queues(site: &Site, armed: &Instance) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    for queue in QUEUES {
        delete(&site.amqp_url, queue).await.unwrap();
    }
    armed.go_on();
    for adapter in QUEUES {
        armed.act(&format!("/api/v1/adapters/{adapter}/start")).await.unwrap();
    }
}

async fn cut_off_from_the_broker(site: &Site, armed: &Instance) {
    site.amqp_relay.refuse(true);
    site.amqp_relay.cut();
    armed.go_on();
    let refuses = async || match armed.readyz().await {
        Ok(reply) if reply.status == 503 => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually("the cut is noticed", LONG, refuses).await;
    tokio::time::sleep(AWAY).await;
    site.amqp_relay.refuse(false);
}

async fn fill_the_disk(site: &Site, armed: &Instance) {
    site.home().rows(DISK_FULL, &[]).await;
    let full = "CREATE TRIGGER full_disk BEFORE INSERT ON ibisstore EXECUTE FUNCTION full_disk()";
    site.home().rows(full, &[]).await;
    armed.go_on();
    tokio::time::sleep(AWAY).await;
    site.home().rows("DROP TRIGGER full_disk ON ibisstore", &[]).await;
}

/// A prepared branch disappears after the decision, as after a fail-over to a server that had not got it yet.
async fn lose_a_branch(site: &Site, armed: &Instance) -> Torn {
    // What other messages have prepared at this moment is committed soon.
    let one = async || {
        let here = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
        let gids: Vec<String> = site.databases[1].column(here, &[]).await;
        match gids.as_slice() {
            [gid] => Ok(gid.clone()),
            _ => Err(format!("{gids:?}")),
        }
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let gid = eventually("one branch is prepared", LONG, one).await;
    let whose = "SELECT unnest(tx_id || others) FROM posthaste.decision WHERE gtrid::text = split_part($1, ':', 4)";
    let whose = site.home().column(whose, &[&gid]).await;
    site.databases[1].rows(&format!("ROLLBACK PREPARED '{gid}'"), &[]).await;
    armed.go_on();
    let told = async || {
        let said = armed.said();
        let found = said.lines().any(|line| line.contains("finished by somebody else, or lost") && line.contains(&gid));
        if found { Ok(()) } else { Err("no alert".to_owned()) }
    };
    eventually("it is told", LONG, told).await;
    // The decision stays as evidence until somebody has put it right.
    let path = format!("/api/v1/transactions/{gid}/commit?reason=mended&force=true");
    eventually("it is acknowledged", LONG, async || armed.act(&path).await).await;
    Torn { whose }
}
