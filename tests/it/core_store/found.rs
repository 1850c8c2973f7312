//! I9: every open row is named in `unsettled` or stands in `due`, whatever way it came in and whatever its id says.

use posthaste::model::{Destination, Incarnation, MessageKey, Mode, SlotId, TxId};
use posthaste::store::{
    AcceptRequest, GivenUpBy, Inserted, Outgoing, ResendClaim, ResendRequest, ResendWay, SessionTimeouts, Store,
};
use uuid::Uuid;

use super::{Home, MINUTE, envelope};
use crate::support::run;

const HOUR: i64 = 3_600_000_000;

/// Open rows in the order of their ids, and in the same order what `unsettled` names.
async fn open_and_named(home: &Home) -> (Vec<Uuid>, Vec<Uuid>) {
    let open = "SELECT tx_id FROM posthaste.journal WHERE state IN ('READY', 'PUBLISHED') ORDER BY 1";
    let named = "SELECT unnest(tx_id || others) FROM posthaste.unsettled ORDER BY 1";
    (home.db.column(open, &[]).await, home.db.column(named, &[]).await)
}

fn shifted(micros: i64) -> TxId {
    TxId::mint_at(jiff::Timestamp::now().as_microsecond() + micros)
}

fn sent(destination: &Destination) -> Outgoing {
    Outgoing { tx_id: TxId::mint(), destination: destination.clone(), mode: Mode::Own, max_attempts: 2 }
}

#[test]
fn each_way_into_the_journal_names_the_rows_that_it_inserts() {
    run(async {
        let home = Home::new().await;
        let mut rows = 0;
        let mut holds = async |way: &str, more: usize| {
            rows += more;
            let (open, named) = open_and_named(&home).await;
            assert_eq!((open.len(), &named), (rows, &open), "{way}");
        };
        home.accepted("alone", Mode::Own).await;
        holds("accept_logged", 1).await;
        let mut two = home.request(TxId::mint(), "two", Mode::Own);
        two.outgoing.push(sent(&Destination::queue("rabbit", "other")));
        assert_eq!(home.store.accept(&two).await.unwrap(), Inserted::Yes);
        holds("accept_logged, to two queues", 2).await;
        let unlogged = AcceptRequest { log: None, ..home.request(TxId::mint(), "unlogged", Mode::Own) };
        assert_eq!(home.store.accept(&unlogged).await.unwrap(), Inserted::Yes);
        holds("accept_unlogged", 1).await;

        let request = |id: &str| home.request(TxId::mint(), id, Mode::Own);
        // One of them is known.
        let alike = [request("a"), request("alone"), request("b"), request("c")];
        home.store.accept_group(&alike).await.unwrap();
        holds("accept_group, alike", 3).await;
        assert_eq!(home.db.count("posthaste.unsettled WHERE cardinality(others) = 2", &[]).await, 1);
        let mut mixed = [request("d"), request("alone"), request("e")];
        mixed[0].outgoing.push(sent(&home.queue));
        home.store.accept_group(&mixed).await.unwrap();
        holds("accept_group, mixed", 3).await;
        home.store.accept_group(&[request("a"), request("b")]).await.unwrap();
        holds("accept_group, all known", 0).await;

        let adopted = TxId::mint();
        assert!(home.store.adopt(&envelope(adopted, "f"), Some("f"), &home.queue, 2).await.unwrap());
        assert!(!home.store.adopt(&envelope(TxId::mint(), "f"), Some("f"), &home.queue, 2).await.unwrap());
        holds("adopt", 1).await;

        let transaction = home.store.begin_work().await.unwrap();
        let from = envelope(TxId::mint(), "g");
        transaction.add_outgoing(&home.store, &from, &[sent(&home.queue), sent(&home.queue)]).await.unwrap();
        transaction.roll_back(&home.store).await;
        holds("add_outgoing, rolled back", 0).await;
        let transaction = home.store.begin_work().await.unwrap();
        transaction.add_outgoing(&home.store, &from, &[sent(&home.queue), sent(&home.queue)]).await.unwrap();
        transaction.commit(&home.store).await.unwrap();
        holds("add_outgoing", 2).await;

        let failed = home.failed(adopted, 0, "no");
        let slot = SlotId::new("errors");
        let key = home.store.give_up(&failed, &slot, "here", GivenUpBy::Attempt).await.unwrap().unwrap();
        home.store.look_through(Uuid::nil(), 100).await.unwrap();
        resend(&home, &slot, key).await;
        // One given up, one instead.
        holds("claim_resend", 0).await;
    });
}

async fn resend(home: &Home, slot_id: &SlotId, key: MessageKey) {
    let request = ResendRequest {
        slot_id,
        key,
        tx_id: TxId::mint(),
        destination: &home.queue,
        adapter: "a",
        who: "operator",
        why: None,
        watch: MINUTE,
        keep: MINUTE,
        confirmed: false,
        way: ResendWay::Pipeline,
    };
    assert!(matches!(home.store.claim_resend(&request).await.unwrap(), ResendClaim::Claimed(_)));
}

#[test]
fn an_id_from_another_time_is_accepted_and_found() {
    run(async {
        let home = Home::new().await;
        let ids = [shifted(-2 * HOUR), shifted(2 * HOUR), shifted(-30 * 24 * HOUR), TxId::mint()];
        for (n, tx_id) in ids.iter().enumerate() {
            // The rows before are settled, and whoever walked has been here.
            assert_eq!(home.accept(*tx_id, &n.to_string(), Mode::Own).await, Inserted::Yes);
            let open = home.open().await;
            assert_eq!(open.iter().map(|row| row.tx_id).collect::<Vec<_>>(), [*tx_id]);
            home.execute("UPDATE posthaste.journal SET state = 'DONE', finished_at = clock_timestamp()").await;
            assert_eq!(home.open().await, []);
            assert_eq!(home.db.count("posthaste.unsettled", &[]).await, 0);
        }
    });
}

#[test]
fn an_entry_stays_until_each_of_its_rows_is_settled_or_stands_in_due() {
    run(async {
        let home = Home::new().await;
        let group: Vec<AcceptRequest> =
            ["a", "b", "c"].map(|id| home.request(TxId::mint(), id, Mode::Own)).into_iter().collect();
        home.store.accept_group(&group).await.unwrap();
        let [a, b, c] = [0, 1, 2].map(|n: usize| group[n].envelope.tx_id);
        let entries = async || home.db.count("posthaste.unsettled", &[]).await;
        let done = "UPDATE posthaste.journal SET state = 'DONE', finished_at = clock_timestamp() WHERE tx_id = $1";

        home.db.rows(done, &[&a.0]).await;
        assert_eq!(home.open().await.len(), 2);
        assert_eq!(entries().await, 1, "two of three are open");
        home.store.postpone(&[b.0], MINUTE).await.unwrap();
        assert_eq!(home.open().await.len(), 2);
        assert_eq!(entries().await, 1, "one is open and not in due");
        // It is gone: nobody need look for it.
        home.db.rows("DELETE FROM posthaste.journal WHERE tx_id = $1", &[&a.0]).await;
        home.db.rows(done, &[&c.0]).await;
        let open = home.open().await;
        assert_eq!((open.len(), open[0].tx_id, open[0].has_due_row), (1, b, true));
        assert_eq!(entries().await, 0);

        let counted = home.store.count_due(Uuid::nil(), 10).await.unwrap();
        let [count] = counted.counts.as_slice() else { panic!("{counted:?}") };
        assert_eq!((&count.destination, count.open, count.unpublished, count.oldest), (&home.queue, 1, 1, b.0));
        assert_eq!(counted.last, Some(b.0));
        assert_eq!(home.store.count_due(b.0, 10).await.unwrap().last, None);
    });
}

#[test]
fn a_walk_in_pages_comes_by_every_open_row() {
    run(async {
        let home = Home::new().await;
        for n in 0..7 {
            home.accept(shifted((n % 3) * HOUR), &n.to_string(), Mode::Own).await;
        }
        let (mut after, mut seen) = (Uuid::nil(), 0);
        while let page = home.store.look_through(after, 2).await.unwrap()
            && let Some(last) = page.last
        {
            assert!(last > after && page.rows.len() <= 2, "{page:?}");
            seen += page.rows.len();
            after = last;
        }
        assert_eq!(seen, 7);
    });
}

#[test]
fn what_is_not_committed_is_not_taken_away_and_nobody_waits_for_it() {
    run(async {
        let home = Home::new().await;
        let other = std::slice::from_ref(&home.settings);
        let other = Store::new(other, &home.settings.name, Incarnation::mint(), SessionTimeouts::default()).unwrap();
        // Two who send: one commits after the other's walk has gone through.
        let sending = other.begin_work().await.unwrap();
        sending.add_outgoing(&other, &envelope(TxId::mint(), "1"), &[sent(&home.queue)]).await.unwrap();
        home.accepted("2", Mode::Own).await;
        home.execute("UPDATE posthaste.journal SET state = 'DONE', finished_at = clock_timestamp()").await;
        assert_eq!(home.open().await, []);
        sending.commit(&other).await.unwrap();
        assert_eq!(home.open().await.len(), 1);
        assert_eq!(home.db.count("posthaste.unsettled", &[]).await, 1);
    });
}

#[test]
fn the_audit_finds_what_neither_names_and_nothing_else() {
    run(async {
        let home = Home::new().await;
        let [named, due, both, settled, lost] = ["1", "2", "3", "4", "5"].map(|id| home.accepted(id, Mode::Own));
        let (named, due, both, settled, lost) = tokio::join!(named, due, both, settled, lost);
        home.store.postpone(&[due.0, both.0], MINUTE).await.unwrap();
        let unnamed = "DELETE FROM posthaste.unsettled WHERE tx_id = ANY ($1)";
        home.db.rows(unnamed, &[&vec![due.0, settled.0, lost.0]]).await;
        let done = "UPDATE posthaste.journal SET state = 'DONE', finished_at = clock_timestamp() WHERE tx_id = $1";
        home.db.rows(done, &[&settled.0]).await;

        // In pages, from the beginning to the end.
        let (mut after, mut found) = (Uuid::nil(), Vec::new());
        while let page = home.store.audit_journal(after, 2).await.unwrap()
            && let Some(last) = page.last
        {
            assert!(last > after, "{page:?}");
            found.extend(page.found);
            after = last;
        }
        assert_eq!((found, after), (vec![lost], lost.0));
        assert_eq!(home.store.due_rows(10).await.unwrap().iter().map(|row| row.tx_id).collect::<Vec<_>>(), [lost]);
        let again = home.store.audit_journal(Uuid::nil(), 10).await.unwrap();
        assert_eq!((again.found, again.last), (vec![], Some(lost.0)));
        assert_eq!(home.open().await.len(), 4, "{named} {both}");
    });
}
