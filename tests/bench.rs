//! What the benchmark makes of its figures, and that its configurations are sound. `make bench` runs the benchmark itself.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![expect(clippy::print_stderr, reason = "figures are for whoever looks")]
#![expect(clippy::disallowed_methods, reason = "a benchmark has no graceful stop; its tasks end with it")]
#![allow(dead_code, reason = "the benchmark uses the rest")]

#[path = "../benches/ratio/against.rs"]
mod against;
#[path = "../benches/ratio/child.rs"]
mod child;
#[path = "../benches/ratio/database.rs"]
mod database;
#[path = "../benches/ratio/facts.rs"]
mod facts;
#[path = "../benches/ratio/figures.rs"]
mod figures;
#[path = "bench/figures.rs"]
mod figures_claims;
#[path = "../benches/ratio/fill.rs"]
mod fill;
#[path = "../benches/ratio/floor.rs"]
mod floor;
#[path = "../benches/ratio/http.rs"]
mod http;
#[path = "bench/http.rs"]
mod http_claims;
#[path = "../benches/ratio/instructions.rs"]
mod instructions;
#[path = "bench/instructions.rs"]
mod instructions_claims;
#[path = "../benches/ratio/interval.rs"]
mod interval;
#[path = "bench/interval.rs"]
mod interval_claims;
#[path = "../benches/ratio/ledger.rs"]
mod ledger;
#[path = "bench/ledger.rs"]
mod ledger_claims;
#[path = "../benches/ratio/load.rs"]
mod load;
#[path = "../benches/ratio/pairs.rs"]
mod pairs;
#[path = "bench/pairs.rs"]
mod pairs_claims;
#[path = "../benches/ratio/proc.rs"]
mod proc;
#[path = "bench/proc.rs"]
mod proc_claims;
#[path = "../benches/ratio/product.rs"]
mod product;
#[path = "../benches/ratio/queue.rs"]
mod queue;
#[path = "../benches/ratio/report.rs"]
mod report;
#[path = "bench/report.rs"]
mod report_claims;
#[path = "../benches/ratio/round.rs"]
mod round;
#[path = "../benches/ratio/rows.rs"]
mod rows;
#[path = "bench/rows.rs"]
mod rows_claims;
#[path = "../benches/ratio/run.rs"]
mod run;
#[path = "bench/run.rs"]
mod run_claims;
#[path = "../benches/ratio/servers.rs"]
mod servers;
#[path = "../benches/ratio/side.rs"]
mod side;
#[path = "../benches/ratio/svg.rs"]
mod svg;
#[path = "bench/svg.rs"]
mod svg_claims;
#[path = "../benches/ratio/twice.rs"]
mod twice;
#[path = "../benches/ratio/two.rs"]
mod two;

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Where the benchmark prints.
fn say(text: &str) {
    eprintln!("{text}");
}

#[test]
fn posthaste_check_finds_no_mistake_in_the_benchmarks_configurations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/ratio/configurations");
    let mut checked = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let here = TempDir::new().unwrap();
        let resources = "instance: { home: main }
postgres: [ { name: main, url: 'postgres://u@h/main' }, { name: other, url: 'postgres://u@h/other' } ]
amqp: [ { name: rabbit, url: 'amqp://u@h', createDestination: true } ]\n";
        fs::write(here.path().join("resources.yml"), resources).unwrap();
        fs::create_dir(here.path().join("configurations")).unwrap();
        std::os::unix::fs::symlink(entry.unwrap().path(), here.path().join("configurations/bench")).unwrap();
        let done =
            Command::new(env!("CARGO_BIN_EXE_posthaste")).arg("check").current_dir(here.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        checked += 1;
    }
    assert_eq!(checked, 3);
}
