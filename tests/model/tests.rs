//! The explorations themselves.

use super::harness;
use super::mutants;
use super::scenarios::{self, Depth, Scenario};
use super::world::Lab;

fn explore(scenario: Scenario) -> usize {
    harness::explore(scenario.name, Lab { scenario, mutant: None })
}

#[test]
fn every_rule_holds_in_every_state_of_every_scenario() {
    let states: usize = scenarios::all(Depth::Usual).into_iter().map(explore).sum();
    println!("{states} states in all");
}

/// Run by hand: `cargo test --release --test model -- --ignored --nocapture`.
#[test]
#[ignore = "minutes; run by hand"]
fn every_rule_holds_in_every_state_of_the_deeper_scenarios() {
    let states: usize = scenarios::all(Depth::Deep).into_iter().map(explore).sum();
    println!("{states} states in all");
}

#[test]
fn every_mutant_is_caught_by_its_rule() {
    let missed: Vec<String> = mutants::ALL
        .iter()
        .filter_map(|(mutant, rule, name)| {
            let lab = Lab { scenario: scenarios::named(name), mutant: Some(*mutant) };
            harness::caught(mutant, lab, rule.property()).err()
        })
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
