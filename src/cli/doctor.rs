//! `posthaste doctor`: which promise do the live servers void?

use std::io::Write;

use super::output::{one_line, print_result, table};
use super::{Failure, Global};
use crate::app::{self, Finding, Level, Report};

pub async fn doctor(global: &Global) -> Result<(), Failure> {
    global.start_logging()?;
    let settings = global.load_running().await?;
    let report = Box::pin(app::doctor(&settings)).await?;
    print_result(global, &report, |out| write(&report, out))?;
    verdict(&report)
}

/// A void promise is certain, and a server that is away may be back soon: the first has the say.
fn verdict(report: &Report) -> Result<(), Failure> {
    if !report.holds {
        return Err(Failure::failed(format!("not every promise holds: {} void", count(report, Level::Void))));
    }
    if !report.unreachable.is_empty() {
        return Err(Failure::unreachable(format!("not reachable: {}", report.unreachable.join(", "))));
    }
    Ok(())
}

fn count(report: &Report, level: Level) -> usize {
    report.findings.iter().filter(|finding| finding.level == level).count()
}

fn write(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let row = |finding: &Finding| {
        let (check, place) = (finding.check.to_owned(), one_line(&finding.place));
        vec![finding.level.as_str().to_owned(), check, place, one_line(&finding.found)]
    };
    let rows = report.findings.iter().map(row).collect();
    out.write_all(table(&["LEVEL", "CHECK", "WHERE", "FOUND"], rows).as_bytes())?;
    for finding in &report.findings {
        let Some(change) = &finding.change else { continue };
        let invariants = if finding.invariants.is_empty() { "none".to_owned() } else { finding.invariants.join(", ") };
        writeln!(out, "\n{}: {} at {}", finding.level.as_str(), finding.check, one_line(&finding.place))?;
        writeln!(out, "  promise: {} (invariants: {invariants})", finding.promise)?;
        writeln!(out, "  change:  {}", one_line(change))?;
    }
    let numbers = [Level::Void, Level::Warning, Level::Unseen, Level::Ok];
    let numbers: Vec<String> =
        numbers.iter().map(|level| format!("{} {}", count(report, *level), level.as_str())).collect();
    writeln!(out, "\n{}", numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::Exit;
    use super::*;

    fn finding(level: Level, check: &'static str, change: Option<&str>) -> Finding {
        Finding {
            level,
            check,
            place: "main".to_owned(),
            found: "off\u{1b}[31m".to_owned(),
            promise: "a commit survives a crash of the machine",
            invariants: if level == Level::Void { &["I1", "I4"] } else { &[] },
            change: change.map(str::to_owned),
        }
    }

    fn report(findings: Vec<Finding>, unreachable: &[&str]) -> Report {
        let holds = findings.iter().all(|finding| finding.level != Level::Void);
        Report { holds, unreachable: unreachable.iter().map(|name| (*name).to_owned()).collect(), findings }
    }

    #[test]
    fn a_table_of_all_comes_before_what_to_change() {
        let findings = vec![
            finding(Level::Void, "fsync", Some("ALTER SYSTEM SET fsync = on")),
            finding(Level::Unseen, "reachable", Some("make it reachable")),
            finding(Level::Ok, "schema", None),
        ];
        let mut out = Vec::new();
        write(&report(findings, &[]), &mut out).unwrap();
        let expected = "LEVEL   CHECK      WHERE  FOUND
void    fsync      main   off\\u{1b}[31m
unseen  reachable  main   off\\u{1b}[31m
ok      schema     main   off\\u{1b}[31m

void: fsync at main
  promise: a commit survives a crash of the machine (invariants: I1, I4)
  change:  ALTER SYSTEM SET fsync = on

unseen: reachable at main
  promise: a commit survives a crash of the machine (invariants: none)
  change:  make it reachable

1 void, 0 warning, 1 unseen, 1 ok
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_void_promise_has_the_say_over_a_server_that_is_away() {
        let exit = |level, unreachable: &[&str]| {
            verdict(&report(vec![finding(level, "fsync", None)], unreachable)).err().map(|failure| failure.exit)
        };
        assert_eq!(exit(Level::Warning, &[]), None);
        assert_eq!(exit(Level::Unseen, &[]), None);
        assert_eq!(exit(Level::Ok, &["rabbit"]), Some(Exit::Unavailable));
        assert_eq!(exit(Level::Void, &["rabbit"]), Some(Exit::Failed));
    }
}
