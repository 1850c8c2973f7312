//! How open rows are found: entries, and what stands in `due` (I9).

use super::bench::{Bench, every_row};
use super::statements;
use crate::support::run;

#[test]
fn looking_through_and_forgetting_what_is_settled_are_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut placed = bench.place(every_row()).await;
        // Entries and times of rows that are settled meanwhile.
        let more = "INSERT INTO posthaste.unsettled SELECT tx_id FROM posthaste.journal ON CONFLICT DO NOTHING";
        bench.client.execute(more, &[]).await.unwrap();
        let more = "INSERT INTO posthaste.due SELECT tx_id, clock_timestamp() FROM posthaste.journal
                    WHERE state IN ('DONE', 'ERROR') AND attempts > 0";
        bench.client.execute(more, &[]).await.unwrap();
        bench.client.execute("UPDATE posthaste.due SET at = clock_timestamp()", &[]).await.unwrap();
        for one in &mut placed {
            let row = &mut one.model.journal[0];
            (row.named, row.in_due) = (true, row.in_due || !row.open() && row.attempts > 0);
        }
        bench.compare("as it was", &placed).await;
        bench.store.look_through(uuid::Uuid::nil(), 10_000).await.unwrap();
        placed.iter_mut().for_each(|one| statements::look_through(&mut one.model.journal[0]));
        bench.compare("look_through", &placed).await;
        bench.store.due_rows(10).await.unwrap();
        placed.iter_mut().for_each(|one| statements::forget_settled(&mut one.model.journal[0]));
        bench.compare("forget_settled", &placed).await;
        assert!(placed.iter().all(|one| one.model.journal[0].found() == one.model.journal[0].open()));
    });
}
