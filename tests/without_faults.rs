//! The program that people get does not know the crash points. `crash_matrix` shows that the same search finds them.
#![cfg(not(feature = "faults"))]

#[cfg(test)]
#[path = "crash_matrix/binary.rs"]
mod binary;

#[test]
fn the_program_holds_no_crash_point() {
    assert_eq!(binary::marks(), Vec::<&str>::new());
}
