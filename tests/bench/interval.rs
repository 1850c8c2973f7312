use crate::interval::*;

/// The numbers 1 to n, in no order.
fn numbers(n: u32) -> Vec<f64> {
    let mut values: Vec<f64> = (1..=n).map(f64::from).collect();
    values.rotate_left(n as usize / 3);
    values.reverse();
    values
}

/// The places of the ends, from 1, and how sure they are, as tables of order statistics have them.
#[test]
fn the_ends_are_those_of_the_tables() {
    for (n, low, high, confidence) in [
        (6, 1, 6, 0.96875),
        (8, 1, 8, 0.9922),
        (9, 2, 8, 0.9609),
        (10, 2, 9, 0.9785),
        (20, 6, 15, 0.9586),
        (25, 8, 18, 0.9567),
        (30, 10, 21, 0.9572),
        (50, 18, 33, 0.9672),
        (100, 40, 61, 0.9648),
    ] {
        let found = interval(&numbers(n)).unwrap();
        assert_eq!((found.lower, found.upper), (f64::from(low), f64::from(high)), "{n}");
        assert!((found.confidence - confidence).abs() < 0.00006, "{n}: {}", found.confidence);
    }
}

#[test]
fn of_five_nothing_is_known() {
    assert_eq!(interval(&numbers(5)), None);
    assert_eq!(interval(&[]), None);
}

#[test]
fn a_few_wild_values_move_nothing() {
    let quiet = interval(&numbers(20)).unwrap();
    let mut wild = numbers(20);
    for value in &mut wild {
        *value = if *value <= 5.0 {
            f64::MIN
        } else if *value >= 16.0 {
            f64::MAX
        } else {
            *value
        };
    }
    assert_eq!(interval(&wild), Some(quiet));
}

/// Counted over all 2^n ways in which values may stand below and above the true median.
#[test]
fn it_holds_the_true_median_as_often_as_it_says() {
    for n in 6..=16_u32 {
        let found = interval(&numbers(n)).unwrap();
        // The median is in the interval if the lower end is below it, and the upper end is not.
        let holds = |ways: &u32| (found.lower..found.upper).contains(&f64::from(ways.count_ones()));
        let held = (0..1_u32 << n).filter(holds).count();
        let share = held as f64 / f64::from(1_u32 << n);
        assert!((share - found.confidence).abs() < 1e-12 && share >= 0.95, "{n}: {share} and {found:?}");
    }
}
