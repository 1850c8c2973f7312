//! Just enough SQL to say which parameters a statement uses, and that it is one statement that leaves the transaction
//! alone. Strings, dollar quotes, quoted identifiers and comments are skipped as PostgreSQL's scanner skips them.

use std::collections::BTreeSet;

/// What a step's statement consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// The `$n` that it uses.
    pub parameters: BTreeSet<usize>,
}

/// Why a text is no statement for a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Empty,
    /// A quote or comment that never ends.
    Open(&'static str),
    /// Something follows a `;`.
    SeveralStatements,
    /// The first word, in upper case: it would end, change or outlive the transaction.
    TransactionControl(String),
}

/// First words that begin, end or split a transaction, change the session, or need a protocol of their own.
const REFUSED: [&str; 19] = [
    "ABORT",
    "BEGIN",
    "COMMIT",
    "COPY",
    "DEALLOCATE",
    "DISCARD",
    "END",
    "EXECUTE",
    "LISTEN",
    "LOAD",
    "NOTIFY",
    "PREPARE",
    "RELEASE",
    "RESET",
    "ROLLBACK",
    "SAVEPOINT",
    "SET",
    "START",
    "UNLISTEN",
];

pub(super) fn examine(sql: &str) -> Result<Statement, Refused> {
    let mut parameters = BTreeSet::new();
    let mut first: Option<String> = None;
    let mut ended = false;
    let mut rest = sql;
    while let Some((token, after)) = next_token(rest)? {
        rest = after;
        match token {
            Token::Skipped => continue,
            Token::Semicolon => {
                ended |= first.is_some();
                continue;
            }
            _ if ended => return Err(Refused::SeveralStatements),
            Token::Parameter(n) => {
                parameters.insert(n);
            }
            Token::Word(_) | Token::Other => {}
        }
        if first.is_none() {
            let word = if let Token::Word(word) = token { word.to_uppercase() } else { String::new() };
            if REFUSED.contains(&word.as_str()) {
                return Err(Refused::TransactionControl(word));
            }
            first = Some(word);
        }
    }
    if first.is_none() { Err(Refused::Empty) } else { Ok(Statement { parameters }) }
}

/// Whether one of its comments ends with its line.
pub(super) fn has_line_comment(sql: &str) -> bool {
    let mut rest = sql;
    while let Ok(Some((_, after))) = next_token(rest) {
        if rest.starts_with("--") {
            return true;
        }
        rest = after;
    }
    false
}

enum Token<'a> {
    /// White space or a comment.
    Skipped,
    Semicolon,
    Parameter(usize),
    /// A key word or a bare name.
    Word(&'a str),
    /// A string, a quoted name, a number, an operator.
    Other,
}

/// The first token of a text and what follows it; None at the end.
fn next_token(text: &str) -> Result<Option<(Token<'_>, &str)>, Refused> {
    let Some(first) = text.chars().next() else { return Ok(None) };
    let (_, after) = text.split_at(first.len_utf8());
    let found = match first {
        c if c.is_whitespace() => (Token::Skipped, after),
        '-' if after.starts_with('-') => (Token::Skipped, after.split_once('\n').map_or("", |(_, rest)| rest)),
        '/' if after.starts_with('*') => (Token::Skipped, skip_comment(text)?),
        ';' => (Token::Semicolon, after),
        '\'' => (Token::Other, skip_quoted(after, '\'', false)?),
        '"' => (Token::Other, skip_quoted(after, '"', false)?),
        '$' => dollar(after)?,
        '0'..='9' => {
            (Token::Other, after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.'))
        }
        c if starts_word(c) => word(text)?,
        _ => (Token::Other, after),
    };
    Ok(Some(found))
}

fn starts_word(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// A name; with an `E` before a quote it is a string in which a backslash escapes.
fn word(text: &str) -> Result<(Token<'_>, &str), Refused> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    match rest.strip_prefix('\'') {
        Some(string) if word.eq_ignore_ascii_case("e") => Ok((Token::Other, skip_quoted(string, '\'', true)?)),
        _ => Ok((Token::Word(word), rest)),
    }
}

/// `$1`, or `$tag$ … $tag$`; anything else is a stray dollar, which PostgreSQL will refuse.
fn dollar(after: &str) -> Result<(Token<'_>, &str), Refused> {
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    if digits > 0 {
        let (number, rest) = after.split_at(digits);
        return Ok((Token::Parameter(number.parse().unwrap_or(usize::MAX)), rest));
    }
    let Some((tag, body)) =
        after.split_once('$').filter(|(tag, _)| tag.chars().all(|c| c.is_alphanumeric() || c == '_'))
    else {
        return Ok((Token::Other, after));
    };
    let closing = format!("${tag}$");
    let (_, rest) = body.split_once(closing.as_str()).ok_or(Refused::Open("a `$` quote"))?;
    Ok((Token::Other, rest))
}

/// What follows the closing quote; a doubled quote does not close.
fn skip_quoted(mut text: &str, quote: char, backslash: bool) -> Result<&str, Refused> {
    loop {
        let stop = text.find(|c| c == quote || (backslash && c == '\\'));
        let Some((_, from)) = stop.map(|at| text.split_at(at)) else {
            return Err(Refused::Open(if quote == '"' { "a quoted name" } else { "a string" }));
        };
        let mut characters = from.chars();
        let escaped = characters.next() == Some('\\') || characters.as_str().starts_with(quote);
        if !escaped {
            return Ok(characters.as_str());
        }
        characters.next();
        text = characters.as_str();
    }
}

/// What follows a block comment; they nest.
fn skip_comment(text: &str) -> Result<&str, Refused> {
    let mut depth = 0_u32;
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("/*") {
            depth += 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = after;
            if depth == 0 {
                return Ok(rest);
            }
        } else {
            let mut characters = rest.chars();
            characters.next().ok_or(Refused::Open("a comment"))?;
            rest = characters.as_str();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parameters(sql: &str) -> Vec<usize> {
        examine(sql).unwrap().parameters.into_iter().collect()
    }

    #[test]
    fn parameters_count_only_where_postgresql_sees_them() {
        assert_eq!(parameters("INSERT INTO t VALUES ($1, $2, $1)"), [1, 2]);
        assert_eq!(
            parameters("SELECT '$1', \"$2\", $$ $3 $$, $t$ $4 $$ $t$, E'\\'$5', a$6 -- $7\n /* $8 /* */ $9 */"),
            [0_usize; 0]
        );
        assert_eq!(parameters("SELECT 'it''s' || $1"), [1]);
        assert_eq!(parameters("SELECT '\\' || $1"), [1]);
        assert_eq!(parameters("SELECT U&'\\0041' || $10::text"), [10]);
    }

    #[test]
    fn a_line_comment_is_one_only_where_postgresql_sees_it() {
        assert!(has_line_comment("INSERT INTO t -- the log\nVALUES ($1)") && has_line_comment("-- x"));
        for sql in ["SELECT '--' || $1", "SELECT 1 /* -- */", "SELECT \"a--b\"", "SELECT 1 - -1", "SELECT 'open --"] {
            assert!(!has_line_comment(sql), "{sql}");
        }
    }

    #[test]
    fn a_trailing_semicolon_is_fine_and_a_second_statement_is_not() {
        assert!(examine("SELECT 1; -- done\n ;").is_ok());
        assert!(examine("SELECT ';'").is_ok());
        assert_eq!(examine("SELECT 1; SELECT 2"), Err(Refused::SeveralStatements));
        assert_eq!(examine("SELECT 1; COMMIT"), Err(Refused::SeveralStatements));
    }

    #[test]
    fn whatever_touches_the_transaction_is_refused_by_its_first_word() {
        for sql in [
            "begin",
            "COMMIT;",
            "Rollback",
            "savepoint a",
            "PREPARE TRANSACTION 'x'",
            "SET search_path = x",
            "LISTEN x",
            "NOTIFY x",
            "/* x */ COMMIT",
            "-- x\nCOMMIT",
            ";COMMIT",
            "start transaction",
            "END",
            "COPY t FROM STDIN",
        ] {
            assert!(matches!(examine(sql), Err(Refused::TransactionControl(_))), "{sql}");
        }
        for sql in ["UPDATE t SET a = 1", "INSERT INTO begin VALUES (1)", "(SELECT 1)", "CALL f()", "\"commit\""] {
            assert!(examine(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn nothing_and_what_never_ends_is_refused() {
        assert_eq!(examine(" ; -- x"), Err(Refused::Empty));
        for sql in ["SELECT 'a", "SELECT \"a", "SELECT $$a", "SELECT $x$ $$", "SELECT /* /* */", "SELECT E'\\'"] {
            assert!(matches!(examine(sql), Err(Refused::Open(_))), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn a_comment_before_any_text_changes_nothing(sql in "[-$'\"/*;eE\\\\a1 \\n\u{e9}]{0,40}") {
            prop_assert_eq!(examine(&format!("/* ' \" $$ /* ; */ */ {sql}")), examine(&sql));
        }
    }
}
