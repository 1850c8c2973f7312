//! AMQP 0-9-1's frames, as far as they are needed to take single messages out of a queue without the library. Pure: bytes in,
//! bytes out, and nothing that a peer sends makes it panic.

/// What a client says first.
pub(super) const GREETING: &[u8] = b"AMQP\0\0\x09\x01";
pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;
pub(super) const END: u8 = 0xce;
/// Kind, channel and size of the payload.
pub(super) const HEAD: usize = 7;
/// What a frame has beside its payload: its head and its end.
const BESIDE: usize = HEAD + 1;
/// Less than this the library never agrees upon.
pub(super) const LEAST_MAX: u32 = 8192;

/// Class and method.
pub(super) type Id = (u16, u16);

pub(super) const START_OK: Id = (10, 11);
pub(super) const TUNE: Id = (10, 30);
pub(super) const TUNE_OK: Id = (10, 31);
pub(super) const OPEN: Id = (10, 40);
pub(super) const OPEN_OK: Id = (10, 41);
pub(super) const CLOSE: Id = (10, 50);
pub(super) const CLOSE_OK: Id = (10, 51);
pub(super) const START: Id = (10, 10);
pub(super) const CHANNEL_OPEN: Id = (20, 10);
pub(super) const CHANNEL_OPEN_OK: Id = (20, 11);
pub(super) const CHANNEL_CLOSE: Id = (20, 40);
pub(super) const CHANNEL_CLOSE_OK: Id = (20, 41);
pub(super) const GET: Id = (60, 70);
pub(super) const GET_OK: Id = (60, 71);
pub(super) const GET_EMPTY: Id = (60, 72);
pub(super) const ACK: Id = (60, 80);

/// The largest frame in bytes that the library agrees upon: the smaller one, where a broker that says 0 has no limit.
pub(super) fn agreed(ours: u32, theirs: u32) -> u32 {
    if theirs == 0 { ours } else { ours.min(theirs.max(LEAST_MAX)) }
}

/// Whether a frame with so much payload is no larger than `most`. Another ends the library's connection.
pub(super) fn fits(payload: usize, most: u32) -> bool {
    usize::try_from(most).is_ok_and(|most| payload.saturating_add(BESIDE) <= most)
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// A frame that says a method.
pub(super) fn method(channel: u16, id: Id, arguments: &[&[u8]]) -> Option<Vec<u8>> {
    let arguments = arguments.concat();
    let size = u32::try_from(arguments.len() + 4).ok()?;
    let (class, method) = (id.0.to_be_bytes(), id.1.to_be_bytes());
    Some([&[METHOD], &channel.to_be_bytes()[..], &size.to_be_bytes(), &class, &method, &arguments, &[END]].concat())
}

/// A short string; `None`: it is too long for one.
pub(super) fn short(text: &str) -> Option<Vec<u8>> {
    Some([&[u8::try_from(text.len()).ok()?], text.as_bytes()].concat())
}

/// A long string; `None`: it is too long even for that.
pub(super) fn long(bytes: &[u8]) -> Option<Vec<u8>> {
    Some([&u32::try_from(bytes.len()).ok()?.to_be_bytes(), bytes].concat())
}

/// What was not read yet of a payload. Each reading that finds too little is `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest<'a>(pub &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(super) fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(usize::from(length))
    }

    pub(super) fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }

    pub(super) fn id(&mut self) -> Option<Id> {
        Some((self.u16()?, self.u16()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_s_frame_is_what_the_protocol_says() {
        let queue = short("q").unwrap();
        let frame = method(1, GET, &[&[0, 0], &queue, &[0]]).unwrap();
        assert_eq!(frame, [1, 0, 1, 0, 0, 0, 9, 0, 60, 0, 70, 0, 0, 1, b'q', 0, 0xce]);
        assert_eq!(short(&"x".repeat(256)), None);
    }

    #[test]
    fn the_smaller_frame_is_agreed_upon_and_head_and_end_count() {
        for (theirs, wanted) in [(0, 131_072), (131_072, 131_072), (200_000, 131_072), (10_000, 10_000), (4_096, 8_192)]
        {
            assert_eq!(agreed(131_072, theirs), wanted, "{theirs}");
        }
        assert!(fits(131_064, 131_072));
        assert!(!fits(131_065, 131_072));
        assert!(!fits(usize::MAX, u32::MAX));
    }

    #[test]
    fn what_is_cut_off_reads_as_nothing() {
        assert_eq!(Rest(&[3, b'a', b'b']).short(), None);
        assert_eq!(Rest(&[0, 0, 0, 9, b'a']).long(), None);
        assert_eq!(Rest(&[255; 4]).long(), None);
        assert_eq!(Rest(&[0; 7]).u64(), None);
        let mut rest = Rest(&[2, b'a', b'b', 7]);
        assert_eq!((rest.short(), rest.byte(), rest.byte()), (Some(&b"ab"[..]), Some(7), None));
    }
}
