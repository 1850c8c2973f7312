//! What a clock leaves behind that was two hours ahead and is put right.

use std::time::Duration;

use posthaste::model::{Destination, Mode, TxId};
use posthaste::store::{Retention, WokenPage};
use uuid::Uuid;

use super::{DAY, Home, MINUTE};
use crate::support::run;

/// More than there are.
const PAGE: i64 = 100;

/// Each open row's wait, and when it is looked at, in seconds from now.
async fn waits(home: &Home) -> Vec<(i64, i64)> {
    let sql = "SELECT coalesce(extract(epoch FROM not_before - clock_timestamp()), -1)::int8,
                      extract(epoch FROM at - clock_timestamp())::int8
               FROM posthaste.journal JOIN posthaste.due USING (tx_id) ORDER BY tx_id";
    home.db.rows(sql, &[]).await.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn no_message_waits_longer_than_anybody_can_have_asked_for() {
    run(async {
        let home = Home::new().await;
        let [retried, looked_at, used_up] = ["1", "2", "3"].map(|id| home.accepted(id, Mode::Own));
        let (retried, looked_at, used_up) = tokio::join!(retried, looked_at, used_up);
        for (tx_id, n) in [(retried, 1), (used_up, 1), (used_up, 2)] {
            assert_eq!(home.start(tx_id).await, Some(n));
            assert!(home.store.retry(&home.failed(tx_id, n, "no"), Duration::ZERO).await.unwrap());
        }
        home.store.postpone(&[looked_at.0], Duration::ZERO).await.unwrap();
        home.execute("UPDATE posthaste.journal SET not_before = not_before + interval '7200 s'").await;
        home.execute("UPDATE posthaste.due SET at = at + interval '7200 s'").await;
        let ahead = waits(&home).await;
        assert!(ahead.iter().all(|(_, at)| (7100..=7200).contains(at)), "{ahead:?}");

        let other = posthaste::model::Destination::queue("rabbit", "other");
        // Whoever does not know a destination does not know how long its messages may wait.
        assert_eq!(home.store.pull_back(&[(other.clone(), MINUTE)], PAGE).await.unwrap(), 0);
        assert_eq!(home.store.pull_back(&[(home.queue.clone(), DAY)], PAGE).await.unwrap(), 2);
        let day = waits(&home).await;
        assert!((7100..=7200).contains(&day[0].0), "a wait of a day may be meant: {day:?}");
        assert_eq!(home.store.pull_back(&[(other, DAY), (home.queue.clone(), MINUTE)], PAGE).await.unwrap(), 1);
        let back = waits(&home).await;
        let (minute, pause) = (50..=60, 3800..=3840);
        let right = minute.contains(&back[0].0) && minute.contains(&back[0].1);
        assert!(right && back[1].0 == -1 && pause.contains(&back[1].1), "{back:?}");
        assert!(pause.contains(&back[2].0) && pause.contains(&back[2].1), "{back:?}");
        // And what waits as it should is left alone.
        assert_eq!(home.store.pull_back(&[(home.queue.clone(), MINUTE)], PAGE).await.unwrap(), 0);
        assert_eq!(waits(&home).await.len(), 3);
    });
}

/// Sets the wait of rows, which have none or so long a one, and when they are looked at, in seconds from now.
async fn wait(home: &Home, rows: &[TxId], not_before: Option<i64>, at: i64) {
    let rows: Vec<Uuid> = rows.iter().map(|row| row.0).collect();
    for (sql, seconds) in [
        (
            "UPDATE posthaste.journal SET not_before = clock_timestamp() + $2::int8 * interval '1 s' WHERE tx_id = ANY($1)",
            not_before,
        ),
        ("UPDATE posthaste.due SET at = clock_timestamp() + $2::int8 * interval '1 s' WHERE tx_id = ANY($1)", Some(at)),
    ] {
        home.db.rows(sql, &[&rows, &seconds]).await;
    }
}

#[test]
fn what_lies_too_far_ahead_is_brought_back_page_by_page_and_what_may_wait_fills_no_page() {
    run(async {
        let home = Home::new().await;
        let mut rows = Vec::new();
        for n in 0..12 {
            rows.push(home.accepted(&n.to_string(), Mode::Own).await);
            home.store.postpone(&[rows[n].0], Duration::ZERO).await.unwrap();
        }
        rows.sort_unstable();
        let (far, meant, near) = (&rows[..7], &rows[7..11], &rows[11..]);
        for (n, row) in far.iter().enumerate() {
            let ahead = 7200 + 60 * i64::try_from(n).unwrap();
            let (not_before, at) =
                [(Some(ahead), ahead), (None, ahead), (Some(ahead), 3000), (Some(600), ahead)][n % 4];
            wait(&home, &[*row], not_before, at).await;
        }
        // These wait longer than the others may, and lie before and behind them.
        wait(&home, meant, Some(80_000), 79_500).await;
        let patient: Vec<Uuid> = meant.iter().map(|row| row.0).collect();
        let set = "UPDATE posthaste.journal SET destination = 'rabbit/patient' WHERE tx_id = ANY($1)";
        home.db.rows(set, &[&patient]).await;
        wait(&home, near, None, 1000).await;

        let delays = [(home.queue.clone(), MINUTE), (Destination::queue("rabbit", "patient"), DAY)];
        for changed in [3, 3, 1, 0] {
            assert_eq!(home.store.pull_back(&delays, 3).await.unwrap(), changed, "{:?}", waits(&home).await);
        }
        let all = waits(&home).await;
        for (n, (not_before, at)) in all.iter().enumerate() {
            let right = match n {
                1 | 5 => *not_before == -1 && (3700..=3840).contains(at),
                0..7 => (0..=60).contains(not_before) && (0..=60).contains(at),
                7..11 => (79_000..=80_000).contains(not_before) && (79_000..=79_500).contains(at),
                _ => *not_before == -1 && (900..=1000).contains(at),
            };
            assert!(right, "{n}: {all:?}");
        }
    });
}

#[test]
fn what_waits_for_a_clock_that_was_ahead_is_woken_page_by_page_but_no_sooner_than_its_next_attempt() {
    run(async {
        let home = Home::new().await;
        assert!(!home.store.ids_are_ahead().await.unwrap(), "an empty journal says nothing");
        let mut rows = Vec::new();
        for id in ["1", "2", "3", "4"] {
            rows.push(home.accepted(id, Mode::Own).await);
            home.store.postpone(&[rows.last().unwrap().0], Duration::from_secs(1800)).await.unwrap();
        }
        rows.sort_unstable();
        // The second waits for its next attempt, the third is looked at already, but would be published in half an hour.
        let set = [
            "UPDATE posthaste.journal SET not_before = clock_timestamp() + interval '600 s' WHERE tx_id = $1",
            "UPDATE posthaste.journal SET publish_after = clock_timestamp() + interval '1800 s' WHERE tx_id = $1",
            "UPDATE posthaste.due SET at = clock_timestamp() WHERE tx_id = $1",
        ];
        for (sql, row) in set.iter().zip([rows[1], rows[2], rows[2]]) {
            home.db.rows(sql, &[&row.0]).await;
        }
        let page = async |after: Uuid| home.store.wake(after, 3).await.unwrap();
        assert_eq!(page(Uuid::nil()).await, WokenPage { woken: 3, last: Some(rows[2].0) });
        let half = waits(&home).await;
        let looked_at: Vec<i64> = half.iter().map(|(_, at)| *at).collect();
        assert!(looked_at[0] <= 0 && (500..=600).contains(&looked_at[1]) && looked_at[2] <= 0, "{half:?}");
        assert!((1700..=1800).contains(&looked_at[3]), "its page has not come: {half:?}");
        assert_eq!(page(rows[2].0).await, WokenPage { woken: 1, last: Some(rows[3].0) });
        assert!(waits(&home).await[3].1 <= 0);
        assert_eq!(page(rows[3].0).await, WokenPage { woken: 0, last: None });
        // Nothing waits any more but for its attempt.
        assert_eq!(page(Uuid::nil()).await.woken, 0);

        assert!(!home.store.ids_are_ahead().await.unwrap());
        home.execute("UPDATE posthaste.journal SET tx_id = 'ff90000000007000800000000000000a' WHERE attempts = 0 AND not_before IS NOT NULL").await;
        assert!(home.store.ids_are_ahead().await.unwrap());
    });
}

#[test]
fn a_publish_in_the_future_says_nothing_of_its_age_and_keeps_nobody_from_publishing() {
    run(async {
        let home = Home::new().await;
        home.accepted("1", Mode::Own).await;
        let set = "UPDATE posthaste.journal SET state = 'PUBLISHED', published_at = clock_timestamp() + $1::int8 * interval '1 s',
                       publish_after = clock_timestamp() + $1::int8 * interval '1 s'";
        for (ahead, age, publish_due) in [(30_i64, Some(Duration::ZERO), false), (7300, None, true)] {
            home.db.rows(set, &[&ahead]).await;
            let open = home.open().await;
            assert_eq!((open[0].published, open[0].publish_due), (age, publish_due), "{ahead}");
        }
    });
}

#[test]
fn nothing_is_cleaned_up_by_a_clock_that_is_not_believed() {
    run(async {
        let home = Home::new().await;
        home.accepted("1", Mode::Own).await;
        home.execute(
            "UPDATE posthaste.journal SET state = 'DONE', finished_at = clock_timestamp() - interval '8 days'",
        )
        .await;
        home.execute("UPDATE posthaste.journal SET tx_id = '0190000000007000800000000000000a'").await;
        home.execute("UPDATE ibisstore SET expirydate = clock_timestamp() - interval '1 day'").await;
        let left = async || (home.db.count("ibisstore", &[]).await, home.db.count("posthaste.journal", &[]).await);
        for (believed, wanted) in [(false, (1, 1)), (true, (0, 0))] {
            let mut asked = Vec::new();
            for mut part in home.store.parts_to_clean().await.unwrap() {
                let look = |micros| {
                    asked.push(micros);
                    believed
                };
                let batch = home.store.clean_by(&mut part, Retention::default(), 1000, look).await.unwrap().unwrap();
                assert!(!batch.more, "{batch:?}");
            }
            assert_eq!(left().await, wanted);
            let off = asked[0] - jiff::Timestamp::now().as_microsecond();
            assert!(asked.len() == 4 && off.abs() < 60_000_000, "{asked:?}");
        }
    });
}
