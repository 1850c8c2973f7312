//! Recognising a step that only inserts one row, so that the rows of many messages can go in one statement (protocol §7).

/// Rows that one statement may hold, the most first; each is planned once a session. Small groups go in one statement,
/// large ones in two.
const WIDTHS: [usize; 19] = [64, 48, 32, 24, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2];
/// Parameters that one statement may have.
const PARAMETERS: usize = 1024;
/// Constants without a type of their own that mean the same in each row.
const CONSTANTS: [&str; 5] = ["CURRENT_TIMESTAMP", "DEFAULT", "FALSE", "NULL", "TRUE"];

/// Types that a value may be cast to: PostgreSQL's own, which stand before any of the same name.
const TYPES: [&str; 23] = [
    "bigint",
    "bool",
    "boolean",
    "bytea",
    "date",
    "float4",
    "float8",
    "int",
    "int2",
    "int4",
    "int8",
    "integer",
    "interval",
    "json",
    "jsonb",
    "numeric",
    "smallint",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "uuid",
    "varchar",
];

/// `INSERT INTO table (columns) VALUES (values)` of parameters and constants, and nothing else: nothing in it can see
/// what the row before it did. The table itself may; see [`WorkTransaction::takes_rows`](super::WorkTransaction).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsertRows {
    table: String,
    /// By how many rows, the most first.
    texts: Vec<(usize, String)>,
}

/// A part of the values' text.
enum Piece<'a> {
    Text(&'a str),
    Parameter(usize),
}

impl InsertRows {
    /// `None`: anything else, also what is only unusual.
    #[must_use]
    pub fn of(sql: &str) -> Option<Self> {
        let mut rest = Rest(sql);
        rest.word("INSERT")?;
        rest.word("INTO")?;
        let table = rest.qualified()?;
        rest.columns()?;
        rest.word("VALUES")?;
        let head = sql.strip_suffix(rest.0)?;
        let row = rest.values()?;
        let _end = rest.sign(";");
        if !rest.0.trim_start().is_empty() {
            return None;
        }
        let parameters = row.iter().map(|piece| if let Piece::Parameter(n) = piece { *n } else { 0 }).max()?;
        let widths = WIDTHS.into_iter().filter(|rows| rows.saturating_mul(parameters) <= PARAMETERS);
        let texts = widths.map(|rows| (rows, text(head, &row, rows, parameters))).collect();
        Some(Self { table: table.to_owned(), texts })
    }

    /// The table, as the statement names it.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The statement for as many of so many rows as one can hold, and how many these are; `None`: one by one.
    #[must_use]
    pub fn widest(&self, rows: usize) -> Option<(usize, &str)> {
        let (width, text) = self.texts.iter().find(|(width, _)| *width <= rows)?;
        Some((*width, text))
    }
}

fn text(head: &str, row: &[Piece<'_>], rows: usize, parameters: usize) -> String {
    let mut text = head.to_owned();
    for number in 0..rows {
        text.push_str(if number == 0 { " " } else { ", " });
        for piece in row {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Parameter(n) => text.push_str(&format!("${}", number * parameters + n)),
            }
        }
    }
    text
}

/// What was not read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.0.split_at_checked(length).filter(|(taken, _)| !taken.is_empty())?;
        self.0 = rest;
        Some(taken)
    }

    fn space(&mut self) {
        self.0 = self.0.trim_start_matches(|c: char| c.is_ascii_whitespace());
    }

    fn sign(&mut self, sign: &str) -> Option<&'a str> {
        self.space();
        if self.0.starts_with(sign) { self.take(sign.len()) } else { None }
    }

    /// A bare word, ASCII only.
    fn bare(&mut self) -> Option<&'a str> {
        self.space();
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.0.find(|c| !inside(c)).unwrap_or(self.0.len());
        let word = self.0.get(..end).filter(|word| !word.starts_with(|c: char| c.is_ascii_digit()))?;
        // A letter of another alphabet, or a dollar, goes on with the name.
        let goes_on = self.0.get(end..)?.starts_with(|c: char| !c.is_ascii() || c == '$');
        if goes_on { None } else { self.take(word.len()) }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.bare().filter(|found| found.eq_ignore_ascii_case(word)).map(drop)
    }

    fn name(&mut self) -> Option<&'a str> {
        self.space();
        let Some(quoted) = self.0.strip_prefix('"') else { return self.bare() };
        self.take(quoted.find('"')? + 2).filter(|_| !self.0.starts_with('"'))
    }

    fn qualified(&mut self) -> Option<&'a str> {
        self.space();
        let from = self.0;
        self.name()?;
        if self.0.starts_with('.') {
            self.take(1)?;
            self.name()?;
        }
        from.strip_suffix(self.0)
    }

    fn columns(&mut self) -> Option<()> {
        if self.sign("(").is_none() {
            return Some(());
        }
        loop {
            self.name()?;
            match self.sign(",") {
                Some(_) => {}
                None => return self.sign(")").map(drop),
            }
        }
    }

    fn values(&mut self) -> Option<Vec<Piece<'a>>> {
        let mut pieces = vec![Piece::Text(self.sign("(")?)];
        loop {
            pieces.push(self.value()?);
            if let Some(cast) = self.cast()? {
                pieces.push(Piece::Text(cast));
            }
            match self.sign(",") {
                Some(comma) => pieces.push(Piece::Text(comma)),
                None => break,
            }
        }
        pieces.push(Piece::Text(self.sign(")")?));
        Some(pieces)
    }

    fn value(&mut self) -> Option<Piece<'a>> {
        self.space();
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        if let Some(number) = self.0.strip_prefix('$') {
            let parameter = self.take(1 + digits(number))?.strip_prefix('$')?;
            return parameter.parse().ok().filter(|n| *n > 0).map(Piece::Parameter);
        }
        if let Some(string) = self.0.strip_prefix('\'') {
            let text = self.take(string.find('\'')? + 2)?;
            // A doubled quote, or a backslash, which may or may not escape.
            let plain = !self.0.starts_with('\'') && !text.contains('\\');
            return plain.then_some(Piece::Text(text));
        }
        if self.0.starts_with(|c: char| c.is_ascii_digit()) {
            return self.take(digits(self.0)).map(Piece::Text);
        }
        self.bare().filter(|word| CONSTANTS.contains(&word.to_uppercase().as_str())).map(Piece::Text)
    }

    /// `::type`; `Some(None)` without one.
    fn cast(&mut self) -> Option<Option<&'a str>> {
        self.space();
        let from = self.0;
        if self.sign("::").is_none() {
            return Some(None);
        }
        self.bare().filter(|name| TYPES.contains(&name.to_lowercase().as_str()))?;
        from.strip_suffix(self.0).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn two_rows(sql: &str) -> String {
        InsertRows::of(sql).unwrap_or_else(|| panic!("{sql} is not recognised")).widest(2).unwrap().1.to_owned()
    }

    #[test]
    fn a_row_of_parameters_and_constants_can_be_repeated() {
        for (sql, wanted) in [
            ("INSERT INTO message (message) VALUES ($1)", "INSERT INTO message (message) VALUES ($1), ($2)"),
            (
                "insert into \"otherMessage\"(a, \"B c\") values ($2 , $1);",
                "insert into \"otherMessage\"(a, \"B c\") values ($2,$1), ($4,$3)",
            ),
            ("INSERT INTO s.t VALUES ($1, $1)", "INSERT INTO s.t VALUES ($1,$1), ($2,$2)"),
            (
                "INSERT INTO t (a, b, c, d, e)\n VALUES ($1::jsonb, 'x y', 7, default, Current_Timestamp)",
                "INSERT INTO t (a, b, c, d, e)\n VALUES ($1::jsonb,'x y',7,default,Current_Timestamp), \
                 ($2::jsonb,'x y',7,default,Current_Timestamp)",
            ),
        ] {
            assert_eq!(two_rows(sql), wanted);
        }
    }

    #[test]
    fn its_table_is_named_as_in_the_statement() {
        for (sql, table) in [
            ("INSERT INTO t VALUES ($1)", "t"),
            ("INSERT INTO a.\"b c\" (d) VALUES ($1)", "a.\"b c\""),
            ("INSERT INTO\n T(x) VALUES ($1)", "T"),
        ] {
            assert_eq!(InsertRows::of(sql).unwrap().table(), table);
        }
    }

    #[test]
    fn whatever_could_see_the_row_before_it_is_left_alone() {
        for sql in [
            "",
            "INSERT",
            "UPDATE t SET a = $1",
            "INSERT INTO t (a) SELECT $1",
            "INSERT INTO t DEFAULT VALUES",
            "INSERT INTO t (a) VALUES ($1) ON CONFLICT DO NOTHING",
            "INSERT INTO t (a) VALUES ($1) RETURNING a",
            "INSERT INTO t (a) VALUES ($1), ($2)",
            "INSERT INTO t (a) VALUES ((SELECT max(a) FROM t))",
            "INSERT INTO t (a) VALUES (f($1))",
            "INSERT INTO t (a) VALUES (now())",
            "INSERT INTO t (a) VALUES ($1 + 1)",
            "INSERT INTO t (a) VALUES ($1 || 'x')",
            "INSERT INTO t (a) VALUES ($1)  ; DELETE FROM t",
            "INSERT INTO t (a) OVERRIDING SYSTEM VALUE VALUES ($1)",
            "INSERT INTO t AS x (a) VALUES ($1)",
            "WITH x AS (SELECT 1) INSERT INTO t (a) VALUES ($1)",
            "INSERT /* x */ INTO t (a) VALUES ($1)",
            "INSERT INTO t (a) VALUES ($1) -- x",
            "INSERT INTO t (a) VALUES ('it''s')",
            "INSERT INTO t (a) VALUES ('a\\')",
            "INSERT INTO t (a) VALUES (E'a')",
            "INSERT INTO t (a) VALUES ($0)",
            "INSERT INTO t (a) VALUES ($a$x$a$)",
            "INSERT INTO t (a) VALUES (b)",
            "INSERT INTO t (a) VALUES ($1::mine)",
            "INSERT INTO t (a) VALUES ($1::s.text)",
            "INSERT INTO t (a) VALUES ($1::varchar(3))",
            "INSERT INTO t (a) VALUES ($1::text::int)",
            "INSERT INTO t (a) VALUES (\u{a0}$1)",
            "INSERT INTO t (a[1]) VALUES ($1)",
            "INSERT INTO t (a) VALUES (1.5)",
            "INSERT INTO t (a) VALUES (1) VALUES ($1)",
            "INSERT INTO tä (a) VALUES ($1)",
            "INSERT INTO \"t\"\"u\" (a) VALUES ($1)",
            "INSERT INTO a.b.c (a) VALUES ($1)",
            "INSERT INTO t (a) VALUES ($1",
            "INSERT INTO t (a) VALUES ()",
        ] {
            assert_eq!(InsertRows::of(sql), None, "{sql}");
        }
    }

    #[test]
    fn so_many_rows_go_in_few_statements() {
        let rows = InsertRows::of("INSERT INTO t (a) VALUES ($1)").unwrap();
        let widths = |mut left: usize| {
            let mut widths = Vec::new();
            while let Some((width, _)) = rows.widest(left) {
                widths.push(width);
                left -= width;
            }
            (widths, left)
        };
        assert_eq!(widths(1), (vec![], 1));
        assert_eq!(widths(14), (vec![14], 0));
        assert_eq!(widths(31), (vec![24, 7], 0));
        assert_eq!(widths(63), (vec![48, 15], 0));
        assert_eq!(widths(200), (vec![64, 64, 64, 8], 0));
    }

    #[test]
    fn a_statement_has_no_more_parameters_than_a_server_takes() {
        let sql =
            format!("INSERT INTO t VALUES ({})", (1..=100).map(|n| format!("${n}")).collect::<Vec<_>>().join(", "));
        let rows = InsertRows::of(&sql).unwrap();
        let (width, text) = rows.widest(1000).unwrap();
        assert_eq!(width, 10);
        assert!(text.ends_with("$1000)"), "{text}");
        assert_eq!(InsertRows::of("INSERT INTO t VALUES ($99999999999)").map(|rows| rows.texts.len()), Some(0));
        assert_eq!(InsertRows::of("INSERT INTO t VALUES ($99999999999999999999999)"), None);
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(sql in "(INSERT INTO )?[a-zA-Z\"'$() ,;:.0-9éß\\\\]{0,60}( VALUES [($1)]{0,9})?") {
            if let Some(rows) = InsertRows::of(&sql) {
                prop_assert!(sql.contains(rows.table()));
            }
        }
    }
}
