//! `Content-Encoding`: what travels on is the body itself, and its limit counts what is unpacked.

use std::io::{self, Cursor, Read};

use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use axum::http::{HeaderMap, StatusCode};
use bytes::{Buf, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use super::problem::{Effect, Problem};
use super::request::{Holding, bad_request, too_large};

/// Unpacked at a time; others have their turn in between.
const PIECE: usize = 64 * 1024;
/// A zstd window of 8 MiB, the most that a client may ask for (RFC 9659): its memory is taken before a byte comes out.
const ZSTD_WINDOW_LOG: u32 = 23;
/// What a client may choose from.
const CODINGS: &str = "gzip, deflate, zstd";

/// In which form a body came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// The zlib format, as RFC 9110 has it.
    Deflate,
    Zstd,
}

impl Coding {
    /// `None`: as it is.
    ///
    /// # Errors
    /// 415 for another one, and for several.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut given = headers.get_all(CONTENT_ENCODING).iter();
        let Some(coding) = given.next() else { return Ok(None) };
        let coding = coding.as_bytes().trim_ascii().to_ascii_lowercase();
        match (coding.as_slice(), given.next()) {
            (b"identity", None) => Ok(None),
            (b"gzip" | b"x-gzip", None) => Ok(Some(Self::Gzip)),
            (b"deflate", None) => Ok(Some(Self::Deflate)),
            (b"zstd", None) => Ok(Some(Self::Zstd)),
            (_, _) => {
                let detail = format!("this Content-Encoding is not unpacked here; one of {CODINGS} is, or none");
                let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).effect(Effect::None);
                Err(problem.header(ACCEPT_ENCODING, CODINGS))
            }
        }
    }

    fn reader(self, packed: Bytes) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(packed.reader())),
            Self::Deflate => Box::new(Inflate { state: Decompress::new(true), packed, ended: false }),
            Self::Zstd => {
                let mut reader = zstd::stream::read::Decoder::with_buffer(Cursor::new(packed))?;
                reader.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(reader)
            }
        })
    }
}

/// The most bytes that a packed body may have: what cannot be made smaller grows a little.
pub(super) const fn packed_limit(max_body: usize) -> usize {
    max_body + max_body / 64 + 1024
}

/// Unpacks within the limit and the memory that is left. What both forms take is counted once: few are unpacked at a time.
///
/// # Errors
/// 400 for what is not whole or not of this form, 413 over the limit, 503 without room.
pub(super) async fn unpack(
    coding: Coding,
    packed: Bytes,
    held: &mut Holding,
    max_body: usize,
) -> Result<Bytes, Problem> {
    let broken = |error: io::Error| bad_request(format!("the body is not what its Content-Encoding says: {error}"));
    if packed.is_empty() {
        return Err(broken(io::ErrorKind::UnexpectedEof.into()));
    }
    let mut reader = coding.reader(packed).map_err(broken)?;
    let (mut unpacked, mut piece) = (BytesMut::new(), vec![0; PIECE]);
    loop {
        let read = reader.read(&mut piece).map_err(broken)?;
        let Some(read) = piece.get(..read).filter(|read| !read.is_empty()) else { return Ok(unpacked.freeze()) };
        if unpacked.len() + read.len() > max_body {
            return Err(too_large(max_body));
        }
        held.hold(unpacked.len() + read.len())?;
        unpacked.extend_from_slice(read);
        tokio::task::yield_now().await;
    }
}

/// The library's own reader takes a stream that was cut off for one that has ended.
struct Inflate {
    state: Decompress,
    packed: Bytes,
    ended: bool,
}

impl Read for Inflate {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let (taken, given) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(&self.packed, into, FlushDecompress::None).map_err(io::Error::other)?;
            let taken = usize::try_from(self.state.total_in() - taken).map_err(io::Error::other)?;
            let given = usize::try_from(self.state.total_out() - given).map_err(io::Error::other)?;
            self.packed.advance(taken);
            self.ended = status == Status::StreamEnd;
            if self.ended && !self.packed.is_empty() {
                return Err(io::Error::other("something follows its end"));
            }
            if given > 0 {
                return Ok(given);
            }
            if taken == 0 && !self.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::super::request::BodyBudget;
    use super::*;

    fn packed(coding: Coding, body: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => {
                let mut into = GzEncoder::new(Vec::new(), Compression::default());
                into.write_all(body).unwrap();
                into.finish().unwrap()
            }
            Coding::Deflate => {
                let mut into = ZlibEncoder::new(Vec::new(), Compression::default());
                into.write_all(body).unwrap();
                into.finish().unwrap()
            }
            Coding::Zstd => zstd::stream::encode_all(body, 0).unwrap(),
        }
    }

    const ALL: [Coding; 3] = [Coding::Gzip, Coding::Deflate, Coding::Zstd];

    async fn unpacked(coding: Coding, packed: &[u8], max_body: usize) -> Result<Bytes, u16> {
        let budget = BodyBudget::new(1 << 20);
        let done = unpack(coding, Bytes::copy_from_slice(packed), &mut budget.nothing(), max_body).await;
        done.map_err(|problem| problem.status().as_u16())
    }

    #[tokio::test]
    async fn every_form_gives_the_body_back_up_to_the_limit_and_not_a_byte_more() {
        let body: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        for coding in ALL {
            let packed = packed(coding, &body);
            assert_eq!(unpacked(coding, &packed, body.len()).await.as_deref(), Ok(body.as_slice()), "{coding:?}");
            assert_eq!(unpacked(coding, &packed, body.len() - 1).await, Err(413), "{coding:?}");
        }
    }

    #[tokio::test]
    async fn an_empty_body_may_be_packed_and_a_packed_body_may_not_be_empty() {
        for coding in ALL {
            assert_eq!(unpacked(coding, &packed(coding, b""), 10).await, Ok(Bytes::new()), "{coding:?}");
            assert_eq!(unpacked(coding, b"", 10).await, Err(400), "{coding:?}");
        }
    }

    #[tokio::test]
    async fn what_is_cut_off_or_followed_by_something_or_of_another_form_is_refused() {
        let body: Vec<u8> = (0..5_000_u32).flat_map(u32::to_be_bytes).collect();
        for coding in ALL {
            let whole = packed(coding, &body);
            for end in [1, 5, whole.len() / 2, whole.len() - 1] {
                assert_eq!(unpacked(coding, &whole[..end], 100_000).await, Err(400), "{coding:?} up to {end}");
            }
            let followed = [whole.as_slice(), b"more"].concat();
            assert_eq!(unpacked(coding, &followed, 100_000).await, Err(400), "{coding:?}");
            assert_eq!(unpacked(coding, b"plain text, not packed", 100_000).await, Err(400), "{coding:?}");
        }
    }

    #[tokio::test]
    async fn what_swells_to_more_than_the_memory_that_is_left_is_refused_while_it_swells() {
        for coding in ALL {
            let bomb = packed(coding, &vec![0; 8 << 20]);
            assert_eq!(unpacked(coding, &bomb, 64 << 20).await, Err(503), "{coding:?}");
        }
    }

    #[tokio::test]
    async fn a_zstd_window_of_more_than_8_mebibytes_is_refused() {
        let mut into = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        into.window_log(24).unwrap();
        into.write_all(b"x").unwrap();
        assert_eq!(unpacked(Coding::Zstd, &into.finish().unwrap(), 1000).await, Err(400));
    }

    #[test]
    fn other_codings_and_several_are_unsupported_and_the_answer_names_those_that_are() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            Coding::of(&headers).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!((of(&[]), of(&["identity"])), (Ok(None), Ok(None)));
        assert_eq!((of(&["GZip"]), of(&["x-gzip"])), (Ok(Some(Coding::Gzip)), Ok(Some(Coding::Gzip))));
        for values in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &["identity", "gzip"], &[""], &["compress"]] {
            assert_eq!(of(values), Err(415), "{values:?}");
        }
    }
}
