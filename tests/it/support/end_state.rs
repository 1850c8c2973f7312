//! What is left when everything has settled, as the history checker wants it.

use std::time::Duration;

use super::{App, Application, eventually};
use crate::history::FinalState;

const OPEN: &str = "SELECT coalesce(i.messageid, p.message_id, j.tx_id::text)
    FROM posthaste.journal j
    LEFT JOIN ibisstore i ON i.messagekey = j.log_key
    LEFT JOIN posthaste.payload p ON p.tx_id = j.tx_id
    WHERE j.state NOT IN ('DONE', 'ERROR')";

impl App {
    /// Waits until no message is on its way; what still is after `bound` will be found by the checker.
    pub async fn settle(&self, bound: Duration) {
        let started = std::time::Instant::now();
        while started.elapsed() < bound {
            let open = self.db.try_rows(OPEN, &[]).await.map(|rows| rows.len());
            if matches!(open, Ok(0)) && self.drained().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Whether the queue is empty once everything in hand was either dropped or handed back, which takes half a second.
    async fn drained(&self) -> bool {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.depth().await == Ok(0)
    }

    /// Like `settle`, but what is still open fails the test.
    pub async fn settled(&self, bound: Duration) {
        eventually("the queue is empty and no journal row is open", bound, async || {
            let open: Vec<String> = self.db.column(OPEN, &[]).await;
            let depth = self.depth().await?;
            if open.is_empty() && depth == 0 { Ok(()) } else { Err(format!("open: {open:?}, in the queue: {depth}")) }
        })
        .await;
    }

    /// Everything the checker judges. The process must not be running: what it holds counts as in the queue.
    pub async fn end_state(&self) -> FinalState {
        let db = &self.db;
        let ids = "SELECT messageid::text FROM ibisstore WHERE slotid = $1 AND type = $2::text::char(1)";
        let (log, errors) = (self.application.log_slot(), self.application.error_slot());
        let [message, other_message] = self.effects_of_all().await;
        FinalState {
            message,
            other_message,
            logged: db.column(ids, &[&log, &"A"]).await,
            errors: db.column(ids, &[&errors, &"E"]).await,
            parked: db.column(ids, &[&errors, &"H"]).await,
            open: db.column(OPEN, &[]).await,
            queue_depth: self.depth().await.unwrap(),
            prepared: self.prepared().await,
        }
    }

    /// What stands in either of the two places that every message writes to.
    async fn effects_of_all(&self) -> [Vec<String>; 2] {
        match self.application {
            Application::WriteDb => [
                self.db.column("SELECT message::text FROM message", &[]).await,
                self.db.column(r#"SELECT message::text FROM "otherMessage""#, &[]).await,
            ],
            Application::TwoDatabases => {
                let booked = "SELECT transfer FROM booking";
                [self.database("ledgerA").column(booked, &[]).await, self.database("ledgerB").column(booked, &[]).await]
            }
        }
    }
}
