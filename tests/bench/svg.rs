use crate::svg::*;

fn bar(ratio: f64) -> Bar {
    Bar { label: "a & b".to_owned(), ratio, target: Some(0.8) }
}

#[test]
fn each_row_has_a_bar_of_its_length_and_a_mark() {
    let svg = draw("t", "n", &[bar(0.5), bar(1.0)]);
    assert_eq!(svg.matches("<rect").count(), 2);
    assert!(svg.contains("width=\"130.0\"") && svg.contains("width=\"260.0\""), "{svg}");
    assert_eq!(svg.matches("class=\"mark\"").count(), 2);
    assert!(svg.contains("a &amp; b") && !svg.contains("a & b"), "{svg}");
}

#[test]
fn a_bar_that_is_too_long_is_cut_and_says_its_number() {
    let svg = draw("t", "n", &[bar(9.0)]);
    assert!(svg.contains("width=\"325.0\"") && svg.contains(">9.00<"), "{svg}");
}

#[test]
fn it_is_readable_on_dark_pages() {
    assert!(draw("t", "n", &[]).contains("prefers-color-scheme:dark"));
}
