//! What cannot be read is parked, and the process dies before the broker knows: it is parked once.

use std::sync::Arc;

use posthaste::txn::faults::Point;

#[path = "../broker/raw.rs"]
mod raw;

use crate::instance::{Armed, Fault};
use crate::messages::Messages;
use crate::site::{Ground, Site};
use crate::support::{LONG, SOON, eventually};
use crate::verdict::Torn;

pub async fn parked_once(ground: Arc<Ground>) {
    let site = Site::lay_out(ground, "aside".to_owned()).await;
    let instance = site.armed(Fault::At(Armed { point: Point::DQ3, kind: "exit", nth: 1, group: false })).await;
    instance.run();
    instance.ready().await;
    // Nothing else is processed, so this one's acknowledgement is the first.
    let properties = [raw::short(b"text/plain"), raw::header(b"caf\xe9", b"x"), raw::short(b"aside")].concat();
    let flags = raw::CONTENT_TYPE | raw::HEADERS | raw::MESSAGE_ID;
    raw::publish(&site.amqp_url, "one", flags, &properties, b"aside").await;
    instance.hit(LONG).await;
    instance.was_killed().await;
    let parked = "SELECT count(*) FROM ibisstore WHERE type = 'H' AND message = 'aside'";
    assert_eq!(site.home().one::<i64>(parked, &[]).await, 1, "parked first, acknowledged then");

    instance.disarm();
    instance.run();
    instance.ready().await;
    let acknowledged = async || match site.unsettled().await.as_str() {
        "[0,0]" => Ok(()),
        held => Err(held.to_owned()),
    };
    eventually("it is acknowledged", SOON, acknowledged).await;
    let messages = Messages::default();
    messages.send(&instance, "one").await;
    messages.repeat_unknown(&instance).await;
    site.quiet(&[&instance]).await;
    site.queues_are_empty(&instance).await;
    assert_eq!(site.home().one::<i64>(parked, &[]).await, 1);
    // It is no message that a client sent.
    site.home().rows("DELETE FROM ibisstore WHERE type = 'H' AND message = 'aside'", &[]).await;
    site.judge(&messages, &Torn::default(), false).await;
    instance.stop().await;
    site.leave().await;
}
