//! Looks at what comes from a broker, frame by frame, before the library reads it. Pure: bytes in, a verdict out.

use super::frames::{self as f, Rest};
use super::nested::{self, HARMLESS};

/// Largest frame of headers that is looked at as a whole, in bytes: eight times RabbitMQ's default.
const MOST: usize = 1024 * 1024;
/// Where a table begins in what a broker says first: behind class, method and version.
const IN_START: usize = 6;

/// A frame that the library would not survive. Nothing of it may reach the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Deadly {
    #[error("headers are tables in tables without end")]
    TooDeep,
    #[error("a frame of headers has {0} bytes; {MOST} are the most")]
    TooLarge(usize),
}

/// Where in the frames the last byte stood.
#[derive(Debug)]
pub(super) enum Watch {
    /// So many bytes of a frame's head are here.
    Head([u8; f::HEAD], usize),
    /// So many bytes come that need not be looked at.
    Passing(usize),
    /// What must be looked at as a whole, of this kind, and so many bytes are missing.
    Holding(u8, Vec<u8>, usize),
}

impl Default for Watch {
    fn default() -> Self {
        Self::Head([0; f::HEAD], 0)
    }
}

impl Watch {
    /// The bytes that come next. After an error it is of no more use.
    pub(super) fn look(&mut self, mut bytes: &[u8]) -> Result<(), Deadly> {
        while !bytes.is_empty() {
            bytes = self.step(bytes)?;
        }
        Ok(())
    }

    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Deadly> {
        match self {
            Self::Head(head, got) => {
                let wanted = f::HEAD - *got;
                let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
                head.iter_mut().skip(*got).zip(taken).for_each(|(byte, new)| *byte = *new);
                *got += taken.len();
                if *got == f::HEAD {
                    *self = begun(&head[..])?;
                }
                Ok(rest)
            }
            Self::Passing(left) => {
                let (taken, rest) = bytes.split_at((*left).min(bytes.len()));
                *left -= taken.len();
                if *left == 0 {
                    *self = Self::default();
                }
                Ok(rest)
            }
            Self::Holding(kind, held, left) => {
                let (taken, rest) = bytes.split_at((*left).min(bytes.len()));
                *left -= taken.len();
                let whole = *left == 0;
                // Most are there at once, and need not be copied.
                if !whole || !held.is_empty() {
                    held.extend_from_slice(taken);
                }
                if whole {
                    let payload = if held.is_empty() { taken } else { held.as_slice() };
                    judged(*kind, payload)?;
                    *self = Self::Passing(1);
                }
                Ok(rest)
            }
        }
    }
}

/// What follows a head: the payload, and one byte more.
fn begun(head: &[u8]) -> Result<Watch, Deadly> {
    let mut rest = Rest(head);
    let (kind, _channel, size) = (rest.byte().unwrap_or_default(), rest.u16(), rest.u32().unwrap_or_default());
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    match kind {
        f::HEADER if size > MOST => Err(Deadly::TooLarge(size)),
        f::HEADER | f::METHOD if (HARMLESS..=MOST).contains(&size) => Ok(Watch::Holding(kind, Vec::new(), size)),
        _ => Ok(Watch::Passing(size.saturating_add(1))),
    }
}

fn judged(kind: u8, payload: &[u8]) -> Result<(), Deadly> {
    let table = if kind == f::HEADER { of_header(payload) } else { of_start(payload) };
    if table.is_some_and(nested::too_deep) { Err(Deadly::TooDeep) } else { Ok(()) }
}

fn of_header(payload: &[u8]) -> Option<&[u8]> {
    let mut rest = Rest(payload);
    let (_class, _weight, _size) = (rest.u16()?, rest.u16()?, rest.u64()?);
    nested::headers(rest.0)
}

/// What a broker says of itself; no other method that it says has a table.
fn of_start(payload: &[u8]) -> Option<&[u8]> {
    if Rest(payload).id()? != f::START {
        return None;
    }
    Rest(payload.get(IN_START..)?).long()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &size[..], payload, &[f::END]].concat()
    }

    /// So many arrays within one another, as headers.
    fn table(levels: usize) -> Vec<u8> {
        let value = (0..levels).fold(Vec::new(), |inner, _| [b"A".to_vec(), f::long(&inner).unwrap()].concat());
        f::long(&[&[0], &value[..]].concat()).unwrap()
    }

    fn header(levels: usize) -> Vec<u8> {
        frame(f::HEADER, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0xa0, 0][..], b"\x01t", &table(levels)].concat())
    }

    fn start(levels: usize) -> Vec<u8> {
        frame(f::METHOD, &[&[0, 10, 0, 10, 0, 9][..], &table(levels), &[0; 8]].concat())
    }

    #[test]
    fn headers_and_a_greeting_that_are_too_deep_are_noticed_with_their_last_byte_at_the_latest() {
        for of in [header, start] {
            assert_eq!(Watch::default().look(&of(64)), Ok(()));
            let deep = of(65);
            assert_eq!(Watch::default().look(&deep), Err(Deadly::TooDeep));
            assert_eq!(Watch::default().look(&deep[..deep.len() - 1]), Err(Deadly::TooDeep));
            assert_eq!(Watch::default().look(&of(20_000)), Err(Deadly::TooDeep));
        }
    }

    #[test]
    fn a_body_may_hold_whatever_it_likes() {
        assert_eq!(Watch::default().look(&frame(f::BODY, &header(65))), Ok(()));
    }

    #[test]
    fn headers_without_end_are_not_waited_for() {
        let head = [&[f::HEADER, 0, 1][..], &u32::MAX.to_be_bytes()].concat();
        assert_eq!(Watch::default().look(&head), Err(Deadly::TooLarge(4_294_967_295)));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(deep: bool, cuts in prop::collection::vec(1_usize..600, 0..60)) {
            let last = header(if deep { 70 } else { 60 });
            let mut bytes: Vec<u8> =
                [header(60), frame(f::BODY, b"12345"), start(1), frame(f::HEARTBEAT, b""), last].concat();
            let mut watch = Watch::default();
            let mut verdict = Ok(());
            for cut in cuts {
                let rest = bytes.split_off(cut.min(bytes.len()));
                verdict = verdict.and_then(|()| watch.look(&bytes));
                bytes = rest;
            }
            verdict = verdict.and_then(|()| watch.look(&bytes));
            prop_assert_eq!(verdict, if deep { Err(Deadly::TooDeep) } else { Ok(()) });
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let _verdict = Watch::default().look(&bytes);
        }
    }
}
