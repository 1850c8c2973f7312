//! Which marks of the crash points stand in the program that is tested.

/// What only a program with the feature `faults` holds: how points are named, and how one is armed.
const MARKS: [&str; 2] = ["fault-point-", "POSTHASTE_FAULT"];

/// A text of every such program: whoever does not find it looks in the wrong place.
const ALWAYS: &str = "POSTHASTE_RESOURCES";

/// The marks in `target/…/posthaste`.
pub fn marks() -> Vec<&'static str> {
    let program = std::fs::read(env!("CARGO_BIN_EXE_posthaste")).unwrap();
    let holds = |text: &str| program.windows(text.len()).any(|at| at == text.as_bytes());
    assert!(holds(ALWAYS), "{ALWAYS} is not in the program");
    MARKS.into_iter().filter(|mark| holds(mark)).collect()
}
