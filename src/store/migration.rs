//! A migration's file, and what a database's history of migrations says of it. Pure.

use refinery::Migration;
use tokio_postgres::error::ErrorPosition;

/// One `V<n>__<what>.sql`.
#[derive(Debug, Clone)]
pub struct MigrationFile {
    /// Where people find it.
    place: String,
    migration: Migration,
    /// By which a history may know it: with other line ends it is the same migration.
    checksums: [u64; 3],
}

/// A row of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub version: i32,
    pub name: String,
    pub checksum: u64,
}

impl MigrationFile {
    /// `stem`: the file's name without `.sql`.
    ///
    /// # Errors
    /// Why it is no migration.
    pub fn read(place: &str, stem: &str, bytes: &[u8]) -> Result<Self, String> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            return Err(format!("line {} is not UTF-8", valid.matches('\n').count() + 1));
        };
        if text.contains('\0') {
            return Err("it holds a NUL character, which PostgreSQL takes in no text".to_owned());
        }
        // A byte order mark is no SQL, and how the file was checked out no change of it.
        let unix = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        let as_written = text.strip_prefix('\u{feff}').unwrap_or(text);
        let windows = unix.replace('\n', "\r\n");
        let parse = |sql: &str| Migration::unapplied(stem, sql).map_err(|error| error.to_string());
        let migration = parse(&unix)?;
        let checksums = [migration.checksum(), parse(as_written)?.checksum(), parse(&windows)?.checksum()];
        Ok(Self { place: place.to_owned(), migration, checksums })
    }

    /// `V1__item`.
    pub(super) fn name(&self) -> String {
        format!("V{}__{}", self.version(), self.migration.name())
    }

    pub(super) fn version(&self) -> i32 {
        self.migration.version()
    }

    pub(super) fn migration(&self) -> &Migration {
        &self.migration
    }
}

/// Which files are not applied yet, or everything that stands in the way. What was applied and has a higher number than
/// all files is of a later version of them, whose expansion this one is to live with.
pub(super) fn compare<'a>(
    files: &'a [MigrationFile],
    history: &[Recorded],
) -> Result<Vec<&'a MigrationFile>, Vec<String>> {
    let last = history.iter().max_by_key(|row| row.version);
    let applied = |file: &&MigrationFile| history.iter().any(|row| row.version == file.version());
    let late = files.iter().filter(|file| !applied(file)).filter_map(|file| late(file, last?, files));
    let mistakes: Vec<String> = history.iter().filter_map(|row| mistake(files, row)).chain(late).collect();
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    Ok(files.iter().filter(|file| !applied(file)).collect())
}

/// Elsewhere it would be applied before that one: the tables would not be the same.
fn late(file: &MigrationFile, last: &Recorded, files: &[MigrationFile]) -> Option<String> {
    let free = files.iter().map(MigrationFile::version).max()?.max(last.version).saturating_add(1);
    (file.version() < last.version).then(|| {
        format!(
            "{}: it came after V{}__{}, which is applied and has a higher number: name it V{free}__{}.sql",
            file.place,
            last.version,
            last.name,
            file.migration.name()
        )
    })
}

fn mistake(files: &[MigrationFile], row: &Recorded) -> Option<String> {
    let was = format!("V{}__{}", row.version, row.name);
    let Some(file) = files.iter().find(|file| file.version() == row.version) else {
        let later = files.iter().find(|file| file.version() > row.version)?;
        let folder = later.place.rsplit_once('/').map_or("the folder", |(folder, _)| folder);
        return Some(format!("{folder}: {was} was applied and its file is gone: bring it back"));
    };
    if file.migration.name() != row.name {
        return Some(format!(
            "{}: {was} was applied under this number: give it this name again, or another number if it is another one",
            file.place
        ));
    }
    (!file.checksums.contains(&row.checksum)).then(|| {
        format!(
            "{}: it was changed after it was applied: bring it back as it was, and write the change into a new \
             migration",
            file.place
        )
    })
}

/// What PostgreSQL said, with the place in the file; and whether it was a right that was missing.
pub(super) fn explained(error: &refinery::Error, file: &MigrationFile) -> (String, bool) {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(db) = cause.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.as_db_error()) {
            let place = match (db.position(), file.migration.sql()) {
                (Some(ErrorPosition::Original(position)), Some(sql)) => {
                    let (line, column) = line_and_column(sql, usize::try_from(*position).unwrap_or(usize::MAX));
                    format!("{}:{line}:{column}", file.place)
                }
                (_, _) => file.place.clone(),
            };
            let code = db.code().code();
            return (format!("{place}: {} (SQLSTATE {code})", db.message()), code == "42501");
        }
        source = cause.source();
    }
    (format!("{}: {error}", file.place), false)
}

/// Line and column, both from 1, of a position that PostgreSQL has told, in characters from 1.
fn line_and_column(sql: &str, position: usize) -> (usize, usize) {
    let before: String = sql.chars().take(position.saturating_sub(1)).collect();
    let last = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, last.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQL: &str = "CREATE TABLE item (id int,\n  message text);\n";

    fn file(stem: &str, sql: &str) -> MigrationFile {
        MigrationFile::read(&format!("m/{stem}.sql"), stem, sql.as_bytes()).unwrap()
    }

    fn recorded(stem: &str, sql: &str) -> Recorded {
        let as_before = Migration::unapplied(stem, sql).unwrap();
        Recorded { version: as_before.version(), name: as_before.name().to_owned(), checksum: as_before.checksum() }
    }

    fn names(found: Result<Vec<&MigrationFile>, Vec<String>>) -> Vec<String> {
        found.unwrap().into_iter().map(MigrationFile::name).collect()
    }

    #[test]
    fn line_ends_and_a_byte_order_mark_make_no_other_migration_whichever_was_applied() {
        let windows = SQL.replace('\n', "\r\n");
        let mixed = SQL.replacen('\n', "\r\n", 1);
        for applied in [SQL, windows.as_str()] {
            for now in [SQL, windows.as_str(), mixed.as_str(), &format!("\u{feff}{SQL}"), &format!("\u{feff}{windows}")]
            {
                let (files, history) = ([file("V1__item", now)], [recorded("V1__item", applied)]);
                assert!(names(compare(&files, &history)).is_empty(), "{applied:?} {now:?}");
            }
        }
        // As it was applied, it always is the same.
        let (files, history) = ([file("V1__item", &mixed)], [recorded("V1__item", &mixed)]);
        assert!(names(compare(&files, &history)).is_empty());
    }

    #[test]
    fn a_lower_number_that_came_later_is_told_with_a_number_that_is_free() {
        let files = [file("V1__item", SQL), file("V2__merged", SQL), file("V3__later", SQL), file("V4__new", SQL)];
        let history = [recorded("V1__item", SQL), recorded("V3__later", SQL)];
        let mistakes = compare(&files, &history).unwrap_err();
        let told = "m/V2__merged.sql: it came after V3__later, which is applied and has a higher number: name it \
                    V5__merged.sql";
        assert_eq!(mistakes, [told]);
        assert_eq!(names(compare(&files, &history[..1])), ["V2__merged", "V3__later", "V4__new"]);
    }

    #[test]
    fn what_was_changed_renamed_or_removed_is_told_all_at_once() {
        let files = [file("V1__item", "SELECT 1"), file("V2__other", SQL), file("V4__last", SQL)];
        let history = [recorded("V1__item", SQL), recorded("V2__more", SQL), recorded("V3__gone", SQL)];
        let mistakes = compare(&files, &history).unwrap_err();
        assert!(mistakes[0].starts_with("m/V1__item.sql: it was changed after"), "{mistakes:?}");
        assert!(mistakes[1].starts_with("m/V2__other.sql: V2__more was applied"), "{mistakes:?}");
        assert!(mistakes[2].starts_with("m: V3__gone was applied and its file is gone"), "{mistakes:?}");
        assert_eq!(mistakes.len(), 3);
    }

    #[test]
    fn what_a_later_version_of_the_files_has_applied_is_no_mistake() {
        let history = [recorded("V1__item", SQL), recorded("V2__newer", SQL)];
        assert!(names(compare(&[file("V1__item", SQL)], &history)).is_empty());
        assert!(names(compare(&[], &history)).is_empty());
    }

    #[test]
    fn what_is_no_text_is_no_migration() {
        let refused = |bytes: &[u8]| MigrationFile::read("m/V1__a.sql", "V1__a", bytes).unwrap_err();
        assert_eq!(refused(b"SELECT 1;\n-- caf\xe9\n"), "line 2 is not UTF-8");
        assert!(refused(b"SELECT 'a\0b'").contains("NUL"));
    }

    #[test]
    fn a_position_is_shown_as_line_and_column() {
        assert_eq!(line_and_column("a\nbé c", 5), (2, 3));
        assert_eq!(line_and_column("a", 1), (1, 1));
    }
}
