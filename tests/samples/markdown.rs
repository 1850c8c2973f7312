//! What stands in the repository's documents: fenced blocks, inline code, links, headings.

use std::fs;
use std::path::{Path, PathBuf};

pub struct Document {
    /// Relative to the repository, such as `docs/protocol.md`.
    pub path: String,
    pub text: String,
}

/// A fenced block: what stands behind the three back-ticks, its lines, and the line it begins at.
#[derive(Debug)]
pub struct Block {
    pub info: String,
    pub body: String,
    pub line: usize,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All documents: those at the top, and those in `docs/` and `examples/`.
pub fn documents() -> Vec<Document> {
    let mut paths = Vec::new();
    markdown_below(root(), false, &mut paths);
    markdown_below(&root().join("docs"), true, &mut paths);
    markdown_below(&root().join("examples"), true, &mut paths);
    paths.sort();
    let relative = |path: PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    paths.into_iter().map(relative).map(|path| Document { text: read(&path), path }).collect()
}

fn markdown_below(folder: &Path, deep: bool, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && deep {
            markdown_below(&path, deep, paths);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
}

impl Document {
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (number, line) in self.text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), open.take()) {
                (Some(_), Some(block)) => blocks.push(block),
                (Some(info), None) => {
                    open = Some(Block { info: info.to_owned(), body: String::new(), line: number + 1 });
                }
                (None, Some(mut block)) => {
                    block.body.push_str(line);
                    block.body.push('\n');
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a fenced block is not closed", self.path);
        blocks
    }

    /// Lines outside fenced blocks, with their numbers.
    pub fn prose(&self) -> Vec<(usize, &str)> {
        let mut fenced = false;
        let mut lines = Vec::new();
        for (number, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                lines.push((number + 1, line));
            }
        }
        lines
    }

    /// What stands between single back-ticks.
    pub fn inline_code(&self) -> Vec<(usize, String)> {
        let in_line = |(number, line): (usize, &str)| {
            let code: Vec<_> = line.split('`').skip(1).step_by(2).map(|code| (number, code.to_owned())).collect();
            code
        };
        self.prose().into_iter().flat_map(in_line).collect()
    }

    /// Targets of links, outside inline code.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("_");
            for rest in text.split("](").skip(1) {
                links.push((number, rest.split(')').next().unwrap().to_owned()));
            }
        }
        links
    }

    /// The anchors that GitHub makes of the headings.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose().into_iter().filter_map(|(_, line)| line.strip_prefix('#'));
        headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
