//! The median of ratios and what is known of it, from their order alone: nothing is assumed of how they are spread. Pure.

use super::figures::median;

/// The confidence that is wanted.
const CONFIDENCE: f64 = 0.95;

/// The median of what was measured, and two of the measured values between which the true median lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub lower: f64,
    pub median: f64,
    pub upper: f64,
    /// How surely it lies there: at least [`CONFIDENCE`].
    pub confidence: f64,
}

/// `None` of fewer than six: even all of them are not sure enough.
pub fn interval(values: &[f64]) -> Option<Interval> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (left_out, confidence) = left_out(sorted.len())?;
    let lower = *sorted.get(left_out)?;
    let upper = *sorted.get(sorted.len() - 1 - left_out)?;
    Some(Interval { lower, median: median(sorted.iter().copied().map(Some))?, upper, confidence })
}

/// How many values may be left out at either end, and how sure the interval of the others is.
///
/// The median lies below the value with k others below it only if at most k of n are below the median; each is with
/// probability 1/2, so that this is a sum of binomials. The other end is its mirror.
fn left_out(n: usize) -> Option<(usize, f64)> {
    let (mut most, mut tail, mut term) = (None, 0.0, 0.5_f64.powi(i32::try_from(n).ok()?));
    for k in 0..n / 2 {
        tail += term;
        let confidence = 1.0 - 2.0 * tail;
        if confidence < CONFIDENCE {
            break;
        }
        most = Some((k, confidence));
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    most
}
