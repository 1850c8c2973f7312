//! That the benchmark can run at all: a short round of what it starts from, whatever is measured.

use std::time::Duration;

use super::figures::Figure;
use super::fill::Templates;
use super::servers::Servers;
use super::{against, rows, run};

const WINDOW: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_benchmark_loads_the_product_on_copies_of_its_templates() {
    let mut servers = Servers::start().await.unwrap();
    let mut templates = Templates::default();
    for row in rows::select(Some("conn-1,two-databases")).unwrap() {
        let round = run::one(&mut servers, &mut templates, &row, WINDOW, true).await.unwrap();
        assert!(Figure::EndToEnd.of(&round).unwrap() > 0.0, "{}", row.name);
    }
    servers.shutdown().await.unwrap();
}

#[tokio::test]
async fn two_builds_take_turns_in_databases_that_each_has_migrated() {
    let options = against::Options {
        other: env!("CARGO_BIN_EXE_posthaste").into(),
        rows: rows::select_compared(Some("conn-1,conn-16")).unwrap(),
        pairs: 1,
        window: WINDOW,
    };
    for (row, pairs) in against::compare(&options).await.unwrap() {
        assert_eq!((pairs.this.len(), pairs.other.len()), (1, 1), "{}", row.name);
    }
}
