//! The commands of a document, run one after the other as they stand. Below each, `# …` shows what it prints.

use super::dev::{Dev, text};
use super::markdown::{Block, Document};

/// One command and what a person is told to see.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub command: String,
    /// In this order, with anything between them.
    pub shows: Vec<String>,
    pub fails: bool,
}

/// The steps of all blocks marked `sh run`, in order.
pub fn steps(document: &Document) -> Vec<Step> {
    let marked = |block: &Block| block.info == "sh run" || block.info == "sh run fails";
    document.blocks().iter().filter(|block| marked(block)).flat_map(steps_of).collect()
}

fn steps_of(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut continued = false;
    for line in block.body.lines() {
        match (line.strip_prefix("# "), steps.last_mut()) {
            (Some(shown), Some(step)) => step.shows.extend(shown.split(" … ").map(str::to_owned)),
            (None, Some(step)) if continued => step.command.extend(["\n", line]),
            (Some(_) | None, _) => {
                steps.push(Step { command: line.to_owned(), shows: Vec::new(), fails: block.info.ends_with("fails") });
            }
        }
        continued = line.ends_with('\\');
    }
    steps
}

impl Step {
    /// Runs it. A command that only reads is repeated until it shows what is shown: messages take their time.
    pub fn run(&self, dev: &Dev) {
        assert!(!self.shows.is_empty(), "nobody is told what this shows: {}", self.command);
        let good =
            |output: &std::process::Output| output.status.success() != self.fails && shows(&text(output), &self.shows);
        if self.only_reads() {
            dev.until(&self.command, good);
        } else {
            let output = dev.run(&self.command);
            assert!(
                good(&output),
                "{}\n{:?}\nshould show {:?}\n{}",
                self.command,
                output.status,
                self.shows,
                text(&output)
            );
        }
    }

    fn only_reads(&self) -> bool {
        ["psql ", "posthaste store list", "posthaste trace", "curl -s http"]
            .iter()
            .any(|start| self.command.starts_with(start))
    }
}

/// Whether the fragments stand in the text, one after the other.
pub fn shows(text: &str, fragments: &[String]) -> bool {
    let mut rest = text;
    fragments.iter().all(|fragment| match rest.split_once(fragment.as_str()) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}
