//! Transactions over several databases, explored (protocol §6): the product's own coordinator, recovery and invariants
//! against a model of its databases.

#[path = "two_phase/coordinator.rs"]
mod coordinator;
#[path = "two_phase/janitor.rs"]
mod janitor;
#[path = "two_phase/mutants.rs"]
mod mutants;
#[path = "two_phase/rules.rs"]
mod rules;
#[path = "two_phase/scenarios.rs"]
mod scenarios;
#[path = "two_phase/servers.rs"]
mod servers;
#[path = "two_phase/world.rs"]
mod world;

use super::harness;
use scenarios::Depth;
use world::Lab;

fn explore(depth: Depth) {
    let all = scenarios::all(depth).into_iter();
    let states: usize = all.map(|scenario| harness::explore(scenario.name, Lab { scenario, mutant: None })).sum();
    println!("{states} states of transactions over several databases in all");
}

#[test]
fn every_rule_holds_in_every_state_of_every_transaction_over_several_databases() {
    explore(Depth::Usual);
}

/// Run by hand: `cargo test --release --test model -- --ignored --nocapture`.
#[test]
#[ignore = "minutes; run by hand"]
fn every_rule_holds_in_every_state_of_deeper_transactions_over_several_databases() {
    explore(Depth::Deep);
}

#[test]
fn every_mutant_of_a_transaction_over_several_databases_is_caught_by_its_rule() {
    let missed: Vec<String> = mutants::ALL
        .iter()
        .filter_map(|(mutant, rule, name)| {
            let lab = Lab { scenario: scenarios::named(name), mutant: Some(*mutant) };
            harness::caught(mutant, lab, rule.property()).err()
        })
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
