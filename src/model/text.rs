//! Foreign text where people read it: it must not steer a terminal, forge a line or turn the direction of reading.

use std::borrow::Cow;

/// Controls, separators of lines and paragraphs, and marks of direction.
#[must_use]
pub fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}')
}

/// On one line, with escapes such as `\n` and `\u{202e}`.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_harmful, |character, out| out.extend(character.escape_default()))
}

/// The same, but line feeds and tabs stay what they are.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    let harmful = |character| is_harmful(character) && !matches!(character, '\n' | '\t');
    escaped(text, harmful, |character, out| out.extend(character.escape_default()))
}

/// A JSON document that means the same: within its strings, JSON's own escapes; they stand nowhere else.
#[must_use]
pub fn json(document: &str) -> Cow<'_, str> {
    let harmful = |character| is_harmful(character) && character != '\n';
    escaped(document, harmful, |character, out| out.push_str(&format!("\\u{:04x}", u32::from(character))))
}

fn escaped(text: &str, harmful: impl Fn(char) -> bool, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.chars().any(&harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if harmful(character) {
            escape(character, &mut out);
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// At most `max` characters, with a sign that some were cut.
#[must_use]
pub fn cut(text: &str, max: usize) -> String {
    if text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_breaks_a_line_or_turns_the_reading_is_escaped_and_nothing_else() {
        let evil = "a\x1b]0;t\x07\r\nb\u{9b}2J\u{202e}c\u{2066}\u{2028}\u{200f}\x7f";
        let told = r"a\u{1b}]0;t\u{7}\r\nb\u{9b}2J\u{202e}c\u{2066}\u{2028}\u{200f}\u{7f}";
        assert_eq!(one_line(evil), told);
        assert_eq!(lines("a\tb\nc\r\u{1b}"), "a\tb\nc\\r\\u{1b}");
        let harmless = "größer \\n 👩\u{200d}💻 \"quoted\" שלום";
        assert_eq!(one_line(harmless), harmless);
    }

    #[test]
    fn an_escaped_json_document_means_the_same() {
        let value = serde_json::json!({"a\u{202e}": ["\u{9b}\u{7f}\n\u{1b}", "\\u202e", "é"], "b": 1});
        let document = serde_json::to_string_pretty(&value).unwrap();
        let escaped = json(&document);
        assert!(!escaped.contains(|character| is_harmful(character) && character != '\n'), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn a_text_is_cut_between_characters_and_shows_it() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("", 3), "");
    }
}
