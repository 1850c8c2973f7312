//! How deep tables lie within tables. The library reads a table by calling itself for each one in it, and ends the whole process
//! where its stack ends: at some thousand levels, for which 6 kB of headers suffice. Pure.

use super::frames::Rest;

/// Deepest tables within tables that are looked into, and that the library is let read.
pub(super) const DEEPEST: usize = 64;
/// Least bytes of an array in an array, and that in another: its type and its length.
const LEAST: usize = 5;

/// Less than this cannot lie too deep, whatever it is.
pub(super) const HARMLESS: usize = DEEPEST * LEAST;

/// A way through values, one after the other.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub too_deep: bool,
    /// The name of some field is not UTF-8.
    pub strange_name: bool,
}

impl Walk {
    /// A value with its type in front; those that are strings are answered. `None`: it ends too early, or nobody knows its
    /// type. What lies too deep is passed over.
    pub(super) fn value<'a>(&mut self, rest: &mut Rest<'a>, depth: usize) -> Option<Option<&'a [u8]>> {
        self.too_deep |= depth == DEEPEST;
        let length = match rest.byte()? {
            b'S' => return Some(Some(rest.long()?)),
            b'x' => {
                rest.long()?;
                0
            }
            b'F' => {
                let table = rest.long()?;
                if depth < DEEPEST {
                    self.table(table, depth + 1)?;
                }
                0
            }
            b'A' => {
                let mut array = Rest(rest.long()?);
                while depth < DEEPEST && !array.0.is_empty() {
                    self.value(&mut array, depth + 1)?;
                }
                0
            }
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            _unknown => return None,
        };
        rest.take(length)?;
        Some(None)
    }

    fn table(&mut self, table: &[u8], depth: usize) -> Option<()> {
        let mut rest = Rest(table);
        while !rest.0.is_empty() {
            let name = rest.short()?;
            self.strange_name |= std::str::from_utf8(name).is_err();
            self.value(&mut rest, depth)?;
        }
        Some(())
    }
}

/// Whether a table, its length not in front of it, has others in it that lie too deep. What comes behind the first byte that
/// is wrong nobody reads, the library neither.
pub(super) fn too_deep(table: &[u8]) -> bool {
    let mut walk = Walk::default();
    let _whole = walk.table(table, 0);
    walk.too_deep
}

/// The headers among a message's properties, these with their flags in front.
pub(super) fn headers(properties: &[u8]) -> Option<&[u8]> {
    let mut rest = Rest(properties);
    let flags = rest.u16()?;
    // The content type and the content encoding stand before them.
    for bit in [15, 14] {
        if flags & (1 << bit) != 0 {
            rest.short()?;
        }
    }
    if flags & (1 << 13) == 0 { None } else { rest.long() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table's content: tables (or arrays) within it, so many.
    fn nested(kind: u8, levels: usize) -> Vec<u8> {
        let mut inner = Vec::new();
        for level in 1..=levels {
            let length = u32::try_from(inner.len()).unwrap().to_be_bytes();
            // What lies in an array has no name, and the outermost is a table's.
            let name: &[u8] = if kind == b'F' || level == levels { b"\0" } else { b"" };
            inner = [name, &[kind], &length, &inner].concat();
        }
        inner
    }

    #[test]
    fn tables_and_arrays_within_one_another_are_counted_and_no_more_than_64_are_let_through() {
        for kind in [b'F', b'A'] {
            assert!(!too_deep(&nested(kind, 64)));
            assert!(too_deep(&nested(kind, 65)));
            assert!(too_deep(&nested(kind, 20_000)));
        }
        assert!(nested(b'A', 65).len() > HARMLESS);
    }

    #[test]
    fn what_is_cut_off_or_of_no_known_type_is_not_deep() {
        let whole = nested(b'F', 64);
        (0..whole.len()).for_each(|length| assert!(!too_deep(&whole[..length])));
        assert!(!too_deep(b"\0?"));
    }

    #[test]
    fn headers_stand_behind_the_content_type_and_the_content_encoding() {
        assert_eq!(headers(b"\xe0\0\x01a\x02bb\0\0\0\x03\0t\x01"), Some(&b"\0t\x01"[..]));
        assert_eq!(headers(b"\x20\0\0\0\0\x03\0t\x01"), Some(&b"\0t\x01"[..]));
        assert_eq!(headers(b"\xc0\0\x01a\x02bb"), None);
        assert_eq!(headers(b"\x20\0\0\0\0\x04\0t\x01"), None);
    }
}
