//! How a model is explored, and how its mutants are caught.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

/// Mutants, each with the rule that must catch it and the scenario in which it does. Needs `Rule` in scope.
macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident caught_by $rule:ident in $scenario:literal),+ $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Mutant {
            $($(#[$doc])* $name),+
        }

        /// Every mutant, the rule that must catch it, and the scenario in which it does.
        pub const ALL: &[(Mutant, Rule, &str)] = &[$((Mutant::$name, Rule::$rule, $scenario)),+];
    };
}

pub(crate) use mutants;

/// Explores all of a model. Any state that breaks a rule fails the test, with the way to it; and what must be reached is.
pub fn explore<M>(name: &str, model: M) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + PartialEq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let began = Instant::now();
    let properties = model.properties();
    let checker = model.checker().threads(2).spawn_bfs().join();
    for property in properties {
        match (property.expectation, checker.discovery(property.name)) {
            (Expectation::Always, Some(path)) => {
                let last = path.last_state().clone();
                panic!("{name}: {} is broken by {:#?}\nin {last:#?}", property.name, path.into_actions());
            }
            (Expectation::Sometimes, None) => panic!("{name}: {} is never so", property.name),
            _ => {}
        }
    }
    let states = checker.unique_state_count();
    println!("{name}: {states} states, {} steps deep, {:.1?}", checker.max_depth(), began.elapsed());
    assert!(states > 100, "{name}: too little to be an exploration");
    states
}

/// Looks for a way in which the mutant breaks the rule, and goes that way once more.
///
/// # Errors
/// It does not, in words.
pub fn caught<M>(mutant: impl Debug, lab: M, rule: Property<M>) -> Result<(), String>
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + PartialEq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let name = rule.name;
    let enough = HasDiscoveries::AnyOf(BTreeSet::from([name]));
    let checker = lab.clone().checker().threads(2).finish_when(enough).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(name) else {
        let others: Vec<_> = checker.discoveries().into_keys().collect();
        return Err(format!("{mutant:?} passes \"{name}\" in {states} states; broken: {others:?}"));
    };
    let actions = path.into_actions();
    println!("{mutant:?}: \"{name}\" broken after {} steps, {states} states", actions.len());
    let mut world = lab.init_states().remove(0);
    assert!((rule.condition)(&lab, &world), "{mutant:?}: broken before anything happens");
    for action in &actions {
        let next = lab.next_state(&world, action.clone());
        world = next.unwrap_or_else(|| panic!("{mutant:?}: not possible: {action:?}"));
    }
    if (rule.condition)(&lab, &world) {
        return Err(format!("{mutant:?}: its counterexample breaks nothing: {actions:?}"));
    }
    Ok(())
}

/// One state in so many is taken to its end.
const SAMPLE: u64 = 64;
/// More steps than any end is away.
const STEPS: usize = 1000;

/// Goes on from a state with everybody at work, in a mixed order that is always the same. `calm`: that state, with
/// nothing more that may go wrong. Only a sample of states is looked at.
pub fn comes_to_its_end<M>(
    lab: &M,
    world: &M::State,
    calm: M::State,
    is_over: impl Fn(&M::State) -> bool,
    is_ordinary: impl Fn(M::Action) -> bool,
) -> bool
where
    M: Model,
    M::State: Hash,
    M::Action: Copy,
{
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    if !hasher.finish().is_multiple_of(SAMPLE) {
        return true;
    }
    let mut world = calm;
    let mut actions = Vec::new();
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    for _step in 0..STEPS {
        if is_over(&world) {
            return true;
        }
        actions.clear();
        lab.actions(&world, &mut actions);
        actions.retain(|action| is_ordinary(*action));
        // Whoever would come first in every round could keep the others from their turn for ever.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let from = usize::try_from(dice >> 33).unwrap_or(0).checked_rem(actions.len()).unwrap_or(0);
        actions.rotate_left(from);
        let Some(next) = actions.iter().find_map(|action| lab.next_state(&world, *action)) else { return false };
        world = next;
    }
    false
}
