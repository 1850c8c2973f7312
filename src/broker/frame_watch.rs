//! Looks at what comes from a broker, frame by frame, before the library reads it. Pure: bytes in, a verdict out.

use super::frames::{self as f, Rest};
use super::nested::{self, HARMLESS};

/// Where a table begins in what a broker says first: behind class, method and version.
const IN_START: usize = 6;
/// Payload of the method by which a broker says how large frames may be.
const TUNE: usize = 12;

/// A frame that the library, or its connection, would not survive. It may not reach the library whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Deadly {
    #[error("headers are tables in tables without end")]
    TooDeep,
    #[error("a frame with a payload of {payload} bytes; {most} were agreed upon for all of it")]
    TooLarge { payload: usize, most: u32 },
}

/// A deadly frame, and how many of the bytes that were looked at stand before its payload: these may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub before: usize,
    pub why: Deadly,
}

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct Watch {
    at: At,
    /// The largest frame: what we offer, and what was agreed upon when the broker has answered that.
    most: u32,
}

/// Where in the frames the last byte stood.
#[derive(Debug)]
enum At {
    /// So many bytes of a frame's head are here.
    Head([u8; f::HEAD], usize),
    /// So many bytes come that need not be looked at.
    Passing(usize),
    /// What must be looked at as a whole, of this kind, and so many bytes are missing.
    Holding(u8, Vec<u8>, usize),
}

impl At {
    const fn next_frame() -> Self {
        Self::Head([0; f::HEAD], 0)
    }
}

impl Watch {
    /// `offered`: the largest frame that we offer.
    pub(super) const fn new(offered: u32) -> Self {
        Self { at: At::next_frame(), most: offered }
    }

    /// The bytes that come next. After an error it is of no more use.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.step(rest).map_err(|why| Refused { before: bytes.len() - rest.len(), why })?;
        }
        Ok(())
    }

    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Deadly> {
        match &mut self.at {
            At::Head(head, got) => {
                let wanted = f::HEAD - *got;
                let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
                head.iter_mut().skip(*got).zip(taken).for_each(|(byte, new)| *byte = *new);
                *got += taken.len();
                if *got == f::HEAD {
                    self.at = begun(&head[..], self.most)?;
                }
                Ok(rest)
            }
            At::Passing(left) => {
                let (taken, rest) = bytes.split_at((*left).min(bytes.len()));
                *left -= taken.len();
                if *left == 0 {
                    self.at = At::next_frame();
                }
                Ok(rest)
            }
            At::Holding(kind, held, left) => {
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
                    self.most = tuned(*kind, payload).map_or(self.most, |theirs| f::agreed(self.most, theirs));
                    self.at = At::Passing(1);
                }
                Ok(rest)
            }
        }
    }
}

/// What follows a head: the payload, and one byte more.
fn begun(head: &[u8], most: u32) -> Result<At, Deadly> {
    let mut rest = Rest(head);
    let (kind, _channel, size) = (rest.byte().unwrap_or_default(), rest.u16(), rest.u32().unwrap_or_default());
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    match kind {
        f::HEADER | f::METHOD if !f::fits(size, most) => Err(Deadly::TooLarge { payload: size, most }),
        f::HEADER | f::METHOD if size >= HARMLESS => Ok(At::Holding(kind, Vec::new(), size)),
        f::METHOD if size == TUNE => Ok(At::Holding(kind, Vec::new(), size)),
        _ => Ok(At::Passing(size.saturating_add(1))),
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

/// How large frames may be for the broker.
fn tuned(kind: u8, payload: &[u8]) -> Option<u32> {
    let mut rest = Rest(payload);
    if kind != f::METHOD || rest.id()? != f::TUNE {
        return None;
    }
    let _channels = rest.u16()?;
    rest.u32()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: u32 = 131_072;

    fn watch() -> Watch {
        Watch::new(MOST)
    }

    fn look(bytes: &[u8]) -> Result<(), Deadly> {
        watch().look(bytes).map_err(|refused| refused.why)
    }

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

    fn tune(frame_max: u32) -> Vec<u8> {
        frame(f::METHOD, &[&[0, 10, 0, 30, 7, 255][..], &frame_max.to_be_bytes(), &[0, 60]].concat())
    }

    /// A frame that is deadly for its size, by its head alone.
    fn large(kind: u8, payload: u32) -> Vec<u8> {
        [&[kind, 0, 1][..], &payload.to_be_bytes()].concat()
    }

    #[test]
    fn headers_and_a_greeting_that_are_too_deep_are_noticed_with_their_last_byte_at_the_latest() {
        for of in [header, start] {
            assert_eq!(look(&of(64)), Ok(()));
            let deep = of(65);
            assert_eq!(look(&deep), Err(Deadly::TooDeep));
            assert_eq!(look(&deep[..deep.len() - 1]), Err(Deadly::TooDeep));
            assert_eq!(look(&of(20_000)), Err(Deadly::TooDeep));
        }
    }

    #[test]
    fn a_body_may_hold_whatever_it_likes() {
        assert_eq!(look(&frame(f::BODY, &header(65))), Ok(()));
        assert_eq!(look(&frame(f::BODY, &vec![0; 200_000])), Ok(()));
    }

    #[test]
    fn what_is_larger_than_the_library_takes_is_refused_at_its_head() {
        for kind in [f::HEADER, f::METHOD] {
            for payload in [131_065, 131_072, 2 << 20, u32::MAX] {
                let why = Deadly::TooLarge { payload: payload.try_into().unwrap(), most: MOST };
                assert_eq!(watch().look(&large(kind, payload)), Err(Refused { before: 0, why }));
            }
            assert_eq!(look(&frame(kind, &[0; 131_064])), Ok(()));
        }
    }

    #[test]
    fn the_broker_s_own_bound_counts_when_it_is_smaller() {
        for (theirs, most) in [(0, MOST), (10_000, 10_000), (200_000, MOST), (4_096, 8_192)] {
            let mut tuned = watch();
            assert_eq!(tuned.look(&tune(theirs)), Ok(()));
            assert_eq!(tuned.look(&frame(f::HEADER, &vec![0; usize::try_from(most).unwrap() - 8])), Ok(()));
            assert!(tuned.look(&large(f::HEADER, most - 7)).is_err(), "{theirs}");
        }
    }

    #[test]
    fn what_stands_before_a_deadly_frame_may_pass() {
        let consume_ok = frame(f::METHOD, &[0, 60, 0, 21, 1, b'c']);
        for (deadly, with_head) in [(header(65), f::HEAD), (large(f::HEADER, u32::MAX), 0)] {
            let refused = watch().look(&[&consume_ok[..], &deadly].concat()).unwrap_err();
            assert_eq!(refused.before, consume_ok.len() + with_head);
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(kind in 0..3, cuts in prop::collection::vec(1_usize..600, 0..60)) {
            let before = [header(60), frame(f::BODY, b"12345"), tune(9_000), start(1), frame(f::HEARTBEAT, b"")].concat();
            let (last, why) = match kind {
                0 => (header(60), None),
                1 => (header(70), Some(Deadly::TooDeep)),
                _ => (frame(f::HEADER, &[0; 8_993]), Some(Deadly::TooLarge { payload: 8_993, most: 9_000 })),
            };
            let whole = [&before[..], &last].concat();
            let (mut rest, mut watch, mut passed, mut found) = (&whole[..], watch(), 0, None);
            let sizes = cuts.into_iter().chain(std::iter::repeat(usize::MAX));
            for size in sizes {
                let (cut, more) = rest.split_at(size.min(rest.len()));
                match watch.look(cut) {
                    Ok(()) => passed += cut.len(),
                    Err(Refused { before, why }) => {
                        passed += before;
                        found = Some(why);
                        break;
                    }
                }
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, why);
            prop_assert!(passed >= before.len(), "all that stands before it passes");
            prop_assert_eq!(passed == whole.len(), why.is_none(), "a deadly frame never passes whole");
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let _verdict = watch().look(&bytes);
        }
    }
}
