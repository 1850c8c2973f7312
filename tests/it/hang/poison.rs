//! Messages that fail like a database in trouble, among good ones (ADR 18).

use super::some_seconds;
use crate::support::{App, LONG, Servers, run};
use crate::trial::{Trial, seed};

#[test]
#[ignore = "a minute each; make hang runs them"]
fn poison_like_a_database_in_trouble_harms_no_neighbour() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        app.accuse().await;
        let trial = Trial::start_with_accusers("poison", seed(), &[app.api]);
        some_seconds(30).await;
        app.ready(LONG).await;
        trial.judge(&mut app).await.accepted_at_least(50);
        let accusers = "ibisstore WHERE type = 'E' AND messageid ~ '-(xx|57|53)-poison$'";
        let kept: i64 = app.db.count(accusers, &[]).await;
        let other = format!("{accusers} AND comments NOT LIKE '%accuses the database%'");
        assert!(kept > 0, "no poison came");
        assert_eq!(app.db.count(&other, &[]).await, 0, "each is kept with its own reason");
        let sessions = app.log_text().matches("not consuming").count();
        assert!(2 * sessions < usize::try_from(kept).unwrap(), "{sessions} pauses for {kept} poisons");
        eprintln!("poison: {kept} in the error store, the database was blamed {sessions} times");
    });
}
