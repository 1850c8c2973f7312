//! Tests against the real binary and real servers, and the judge of its histories.

#[cfg(test)]
mod history;
