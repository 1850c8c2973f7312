//! Properties that are larger than a frame of the library may be, and room for large bodies.

use std::sync::Arc;

use super::{QUEUE, at_broker, raw, vhost};
use crate::support::{App, LONG, Servers, eventually, run, same};

/// Properties of so many bytes, with the 14 before them the payload of one frame: a header and a message id.
fn properties(payload: usize, id: &[u8]) -> Vec<u8> {
    [raw::header(b"big", &vec![b'x'; payload - 28 - id.len()]), raw::short(id)].concat()
}

#[test]
fn properties_larger_than_our_frames_are_parked_and_those_that_grow_beyond_them_too() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        app.stop().await;
        app.good("before").await;
        // The largest that a publisher may send, and the largest that we take: it grows when it is delivered again.
        for (id, payload) in [("largest", 131_072), ("grows", 131_064)] {
            app.bad(raw::HEADERS | raw::MESSAGE_ID, &properties(payload, id.as_bytes()), id.as_bytes()).await;
        }
        app.good("after").await;
        app.run();
        for number in 0..20 {
            app.processed(&format!("before-{number}"), LONG).await;
            app.processed(&format!("after-{number}"), LONG).await;
        }
        eventually("two are set aside", LONG, async || same(app.set_aside().await.len(), &2)).await;
        app.settled(LONG).await;
        let aside = app.set_aside().await;
        for (one, id) in aside.iter().zip(["largest", "grows"]) {
            assert_eq!((one.message_id.as_str(), &one.body[..]), (id, id.as_bytes()));
            let told = one
                .comments
                .strip_prefix("it cannot be read as others are: its headers are too large for our client: ");
            let bytes = told.and_then(|told| told.strip_suffix(" bytes; it was never processed"));
            let bytes: usize = bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or_else(|| panic!("{one:?}"));
            assert!((131_053..131_200).contains(&bytes), "{one:?}");
            assert_eq!(one.headers, serde_json::json!({}), "no more headers are kept than of any message");
        }
        for number in 0..20 {
            assert_eq!(app.effects(&format!("after-{number}")).await, [1, 1]);
        }
    });
}

#[test]
fn what_we_take_at_most_is_processed() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.bad(raw::HEADERS | raw::MESSAGE_ID, &properties(131_064, b"fits"), b"fits").await;
        app.processed("fits", LONG).await;
        app.settled(LONG).await;
        assert_eq!(app.set_aside().await, []);
    });
}

#[test]
fn room_is_asked_for_before_a_body_is_read_and_kept_until_it_is_acknowledged() {
    run(async {
        let url = vhost().await;
        let (broker, _lifecycle) = at_broker(&url).await;
        broker.ensure_queue(QUEUE).await.unwrap();
        let body = vec![b'x'; 300_000];
        for id in [&b"readable"[..], b"caf\xe9"] {
            raw::publish(&url, QUEUE, raw::MESSAGE_ID, &raw::short(id), &body).await;
        }
        let (room, mut asked) = (Arc::new(()), Vec::new());
        let mut aside = broker.look_for_unreadable(QUEUE, 10).await.unwrap();
        let take = |bytes: usize| {
            asked.push(bytes);
            std::future::ready(room.clone())
        };
        let one = aside.next(take).await.unwrap().unwrap();
        assert_eq!(one.message.body, body);
        // Its body, its flags, its id and what the broker adds; and nothing for the other one.
        assert!(matches!(asked[..], [300_007..300_100]), "{asked:?}");
        assert_eq!(Arc::strong_count(&room), 2, "as long as it is kept");
        aside.ack(one).await.unwrap();
        assert_eq!(Arc::strong_count(&room), 1);

        // Who waits for room has not read the body.
        raw::publish(&url, QUEUE, raw::MESSAGE_ID, &raw::short(b"caf\xe9"), &body).await;
        let (told, waits) = tokio::sync::oneshot::channel();
        let never = |bytes: usize| {
            told.send(bytes).unwrap();
            std::future::pending::<()>()
        };
        tokio::select! {
            _one = aside.next(never) => panic!("without room"),
            asked = waits => assert!(matches!(asked, Ok(300_007..300_100)), "{asked:?}"),
        }
        drop(aside);
        broker.close().await;
    });
}
