//! A message that cannot be read is the first that a receiver is sent, with the answer that it has a consumer.

use super::{nested, raw};
use crate::support::{App, LONG, SOON, Servers, eventually, run, same};

#[test]
fn the_first_and_only_message_is_parked_at_each_start_and_nothing_loops() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        app.stop().await;
        let large = raw::header(b"big", &vec![b'x'; 131_040]);
        let all = [(raw::HEADERS, nested(1_000)), (raw::HEADERS, large), (raw::CONTENT_TYPE, raw::short(b"caf\xe9"))];
        for (done, (flags, properties)) in all.iter().cycle().take(6).enumerate() {
            app.bad(*flags, properties, format!("{done}").as_bytes()).await;
            app.run();
            eventually("it is set aside", LONG, async || same(app.set_aside().await.len(), &(done + 1))).await;
            let started = async || same(app.adapter_state("writeDb").await, &"STARTED".to_owned());
            eventually("the receiver is at work", SOON, started).await;
            let ends = app.log_lines("from now on each consumer has its own connection");
            assert_eq!(ends.len(), done + 1, "the shared connection ends once: {ends:?}");
            app.good(&format!("after-{done}")).await;
            app.processed(&format!("after-{done}-19"), LONG).await;
            app.settled(LONG).await;
            app.stop().await;
        }
        assert_eq!(app.set_aside().await.len(), 6);
    });
}
