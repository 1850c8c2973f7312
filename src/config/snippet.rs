//! One line of a file with a caret under the mistake, secrets covered.

use std::ops::Range;

use crate::model::text::is_harmful;

/// Stands for whatever is not shown.
pub(super) const MASK: &str = "***";

/// The widest piece of a line that is shown, in characters.
const WIDTH: usize = 120;

/// The line with its number, and a caret at the column (both counted from 1, columns in characters).
/// None when the file has no such line.
pub(super) fn cut(text: &str, masked: &[Range<usize>], line: usize, column: usize) -> Option<String> {
    let (start, source) = line_at(text, line)?;
    let (shown, caret) = cover(source, start, masked, column.saturating_sub(1));
    let (shown, caret) = window(&shown, caret);
    let margin = " ".repeat(line.to_string().len());
    Some(format!("   {line} | {shown}\n   {margin} | {}^", " ".repeat(caret)).replace(" \n", "\n"))
}

/// The byte at which a line starts, and the line without its end.
fn line_at(text: &str, line: usize) -> Option<(usize, &str)> {
    let mut start = 0;
    for (index, source) in text.split_inclusive('\n').enumerate() {
        if index + 1 == line {
            return Some((start, source.trim_end_matches(['\n', '\r'])));
        }
        start += source.len();
    }
    None
}

/// The line's characters with masked runs replaced, and where the caret then stands.
fn cover(source: &str, start: usize, masked: &[Range<usize>], caret: usize) -> (Vec<char>, usize) {
    let mut shown = Vec::new();
    let mut caret_shown = None;
    let mut in_mask = false;
    for (index, (offset, character)) in source.char_indices().enumerate() {
        let secret = masked.iter().any(|range| range.contains(&(start + offset)));
        if secret && !in_mask {
            shown.extend(MASK.chars());
        }
        if index == caret {
            caret_shown = Some(if secret { shown.len() - MASK.len() } else { shown.len() });
        }
        in_mask = secret;
        if !secret {
            // A tab would shift the caret, as would an escape of what could speak to the terminal.
            shown.push(if is_harmful(character) { ' ' } else { character });
        }
    }
    let caret_shown = caret_shown.unwrap_or(shown.len());
    (shown, caret_shown)
}

/// At most `WIDTH` characters around the caret.
fn window(shown: &[char], caret: usize) -> (String, usize) {
    if shown.len() <= WIDTH {
        return (shown.iter().collect(), caret);
    }
    let from = caret.saturating_sub(WIDTH / 2).min(shown.len() - WIDTH);
    let mut piece: String = shown.iter().skip(from).take(WIDTH).collect();
    if from + WIDTH < shown.len() {
        piece.push('…');
    }
    if from == 0 { (piece, caret) } else { (format!("…{piece}"), caret - from + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_column_that_is_meant() {
        assert_eq!(cut("a: 1\nbé: x\n", &[], 2, 5).unwrap(), "   2 | bé: x\n     |     ^");
    }

    #[test]
    fn a_masked_run_is_three_stars_and_moves_what_follows() {
        let text = "{ p: hunter2, q: x }";
        let masked = vec![Range { start: 5, end: 12 }];
        assert_eq!(cut(text, &masked, 1, 18).unwrap(), "   1 | { p: ***, q: x }\n     |              ^",);
        assert_eq!(cut(text, &masked, 1, 8).unwrap(), "   1 | { p: ***, q: x }\n     |      ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{}X{}", "a".repeat(300), "b".repeat(300));
        let snippet = cut(&text, &[], 1, 301).unwrap();
        let lines: Vec<_> = snippet.lines().collect();
        let caret = lines[1].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[0].chars().nth(caret), Some('X'));
        assert!(lines[0].chars().count() < 140, "{}", lines[0]);
    }

    #[test]
    fn a_place_behind_the_last_line_has_no_snippet() {
        assert_eq!(cut("a: 1\n", &[], 2, 1), None);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert!(!cut("a: \u{1b}[31m\tx\u{202e}", &[], 1, 4).unwrap().contains(['\u{1b}', '\t', '\u{202e}']));
    }
}
