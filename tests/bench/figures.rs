use crate::figures::*;

fn accepted(rates: &[f64]) -> Vec<Round> {
    rates.iter().map(|rate| Round { accepted: Some(*rate), ..Round::default() }).collect()
}

#[test]
fn the_median_is_the_middle_one_whatever_the_order() {
    let of = |values: &[f64]| median(values.iter().map(|value| Some(*value)));
    assert_eq!(of(&[9.0, 1.0, 5.0]), Some(5.0));
    assert_eq!(of(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    assert_eq!(of(&[7.0]), Some(7.0));
    assert_eq!(of(&[]), None);
}

#[test]
fn a_figure_that_one_round_lacks_has_no_median() {
    assert_eq!(median([Some(1.0), None, Some(2.0)].into_iter()), None);
}

#[test]
fn the_ratio_compares_round_by_round() {
    // The machine became half as fast: the medians' ratio would be 2/4.
    let measured = Measured { product: accepted(&[8.0, 2.0, 2.0]), other: accepted(&[10.0, 4.0, 2.5]) };
    assert_eq!(measured.ratio(Figure::Accepted), Some(0.8));
    assert_eq!(measured.product(Figure::Accepted), Some(2.0));
    assert_eq!(measured.other(Figure::Accepted), Some(4.0));
    assert_eq!(measured.ratio(Figure::P50), None);
}

#[test]
fn there_is_no_ratio_to_nothing() {
    let measured = Measured { product: accepted(&[8.0]), other: accepted(&[0.0]) };
    assert_eq!(measured.ratio(Figure::Accepted), None);
}

#[test]
fn a_percentile_is_a_value_that_was_measured() {
    let mut values: Vec<u32> = (1..=200).rev().collect();
    assert_eq!(percentile(&mut values, 500), Some(100));
    assert_eq!(percentile(&mut values, 990), Some(198));
    assert_eq!(percentile(&mut [3], 990), Some(3));
    assert_eq!(percentile(&mut [], 500), None);
}

#[test]
fn the_cpu_time_of_a_message_is_that_of_all_three() {
    let round = Round { cpu_self: Some(0.5), cpu_postgres: Some(0.25), cpu_rabbit: Some(1.0), ..Round::default() };
    assert_eq!(Figure::Cpu.of(&round), Some(1.75));
    assert_eq!(Figure::Cpu.of(&Round { cpu_rabbit: None, ..round }), None);
}
