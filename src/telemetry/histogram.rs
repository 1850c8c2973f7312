//! Histograms in Prometheus' text format. The recorder's own would keep every value until somebody asks.

use std::fmt::Write as _;

use crate::model::{AdapterName, Counted, Latencies};

/// How long something took, by adapter.
#[derive(Debug)]
pub struct Histogram<'a> {
    pub name: &'static str,
    pub meaning: &'static str,
    pub of: Vec<(&'a AdapterName, &'a Latencies)>,
}

impl Histogram<'_> {
    /// Adds itself to a page.
    pub(super) fn render(&self, page: &mut String) {
        let Self { name, meaning, of } = self;
        let mut line = |text: std::fmt::Arguments<'_>| {
            // A text takes everything.
            let _written = page.write_fmt(text).is_ok();
            page.push('\n');
        };
        if of.is_empty() {
            return;
        }
        line(format_args!("# HELP {name} {meaning}"));
        line(format_args!("# TYPE {name} histogram"));
        for (adapter, latencies) in of {
            let (adapter, Counted { within, all, sum }) = (escaped(adapter.as_str()), latencies.counted());
            for (bound, count) in within {
                let bound = bound.as_secs_f64();
                line(format_args!("{name}_bucket{{adapter=\"{adapter}\",le=\"{bound}\"}} {count}"));
            }
            line(format_args!("{name}_bucket{{adapter=\"{adapter}\",le=\"+Inf\"}} {all}"));
            line(format_args!("{name}_sum{{adapter=\"{adapter}\"}} {}", sum.as_secs_f64()));
            line(format_args!("{name}_count{{adapter=\"{adapter}\"}} {all}"));
        }
        line(format_args!(""));
    }
}

/// As the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_page_has_each_bucket_with_all_smaller_ones_in_it_the_sum_and_the_count() {
        let (adapter, latencies) = (AdapterName::new("a\"b\\c"), Latencies::default());
        for millis in [1, 3, 3_600_000 * 3] {
            latencies.note(Duration::from_millis(millis));
        }
        let mut page = "before 1\n".to_owned();
        Histogram { name: "took_seconds", meaning: "How long.", of: vec![(&adapter, &latencies)] }.render(&mut page);
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines[..3], ["before 1", "# HELP took_seconds How long.", "# TYPE took_seconds histogram"]);
        let of = |le: &str| {
            let start = format!("took_seconds_bucket{{adapter=\"a\\\"b\\\\c\",le=\"{le}\"}} ");
            lines.iter().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{le} in {page}"))
        };
        assert_eq!((of("0.001"), of("0.0025"), of("0.005"), of("7200"), of("+Inf")), ("1", "1", "2", "2", "3"));
        assert!(page.contains("took_seconds_sum{adapter=\"a\\\"b\\\\c\"} 10800.004\n"), "{page}");
        assert!(page.contains("took_seconds_count{adapter=\"a\\\"b\\\\c\"} 3\n"), "{page}");
    }

    #[test]
    fn without_an_adapter_there_is_none() {
        let mut page = String::new();
        Histogram { name: "took_seconds", meaning: "How long.", of: Vec::new() }.render(&mut page);
        assert_eq!(page, "");
    }
}
