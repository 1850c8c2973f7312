//! A home that was restored elsewhere: it takes the original's place, or is a copy.

use posthaste::model::{Mode, TxId};
use posthaste::store::{HomeCheck, HomeDecision, Inserted, settle_home};
use uuid::Uuid;

use super::{Home, MINUTE, envelope};
use crate::support::run;

#[test]
fn a_home_that_took_the_others_place_goes_on() {
    run(async {
        let home = Home::new().await;
        home.accepted("1", Mode::Own).await;
        home.execute("UPDATE posthaste.home SET system_identifier = '1', timeline = 7").await;
        let id: Uuid = home.db.one("SELECT id FROM posthaste.home", &[]).await;
        assert!(matches!(home.store.check_home().await.unwrap(), HomeCheck::Moved(_)));
        let settled = settle_home(&home.settings, HomeDecision::Same, 0, "operator").await.unwrap();
        assert_eq!((settled.home.0, settled.on_hold), (id, 0));
        assert_eq!(home.store.check_home().await.unwrap(), HomeCheck::Same(settled.home));
        assert_eq!(home.open().await.len(), 1);
        let audit = "SELECT who || ' ' || what || ' ' || (detail ->> 'decision') FROM posthaste.audit";
        assert_eq!(home.db.one::<String>(audit, &[]).await, "operator home same");
    });
}

#[test]
fn a_copy_gets_an_identity_of_its_own_and_holds_what_the_original_goes_on_with() {
    run(async {
        let home = Home::new().await;
        let open = home.accepted("open", Mode::Own).await;
        let adopted = TxId::mint();
        assert!(home.store.adopt(&envelope(adopted, "adopted"), Some("x"), &home.queue, 2).await.unwrap());
        home.accepted("done", Mode::Handover).await;
        home.execute(
            "UPDATE posthaste.journal SET state = 'DONE', finished_at = clock_timestamp() WHERE mode = 'HANDOVER'",
        )
        .await;
        home.store.postpone(&[open.0], MINUTE).await.unwrap();
        let id: Uuid = home.db.one("SELECT id FROM posthaste.home", &[]).await;
        home.execute("UPDATE posthaste.home SET system_identifier = '1'").await;

        let settled = settle_home(&home.settings, HomeDecision::Copy, 0, "operator").await.unwrap();
        assert_eq!(settled.on_hold, 2);
        assert_ne!(settled.home.0, id);
        assert_eq!(home.store.check_home().await.unwrap(), HomeCheck::Same(settled.home));
        assert_eq!(home.open().await, []);
        assert_eq!(home.db.count("posthaste.due", &[]).await, 0);
        let held = "SELECT messageid || ' ' || slotid || ' ' || convert_from(message, 'UTF8') FROM ibisstore
                    WHERE type = 'H' AND comments LIKE '%original installation owns this message%' ORDER BY 1";
        assert_eq!(home.db.column::<String>(held, &[]).await, ["adopted rabbit/q body", "open rabbit/q body"]);
        // A client's repeat still gets the duplicate answer.
        assert_eq!(home.accept(TxId::mint(), "open", Mode::Own).await, Inserted::Conflict);
        // Said twice, it does nothing more.
        assert_eq!(settle_home(&home.settings, HomeDecision::Copy, 0, "operator").await.unwrap().on_hold, 0);
    });
}
