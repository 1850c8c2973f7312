//! Takes out of a queue what the library cannot read: it would end each connection over which such a message is delivered, and
//! nothing behind it would be seen. Over a connection of its own, one message at a time, without the library (ADR 24).

use std::io;
use std::time::Duration;

use bytes::Bytes;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::Purpose;
use super::endpoint::Endpoint;
use super::frames::{self as f, Frame, Id, Rest, long, method, short};
use super::unreadable::{BEFORE_PROPERTIES, Envelope, Unreadable};
use crate::txn::faults::{Point, reach};

/// Largest frame of properties that is read, in bytes: RabbitMQ sends them in one, however large they are.
const MAX_HEADER_FRAME: u32 = 8 * 1024 * 1024;
/// Largest body that is taken out, in bytes: RabbitMQ's largest by default.
const MAX_BODY: u64 = 128 * 1024 * 1024;
/// The one channel.
const CHANNEL: u16 = 1;
/// For any answer. A broker that delivers a message again writes its headers anew, and takes seconds for tables in tables.
const ANSWER_BOUND: Duration = Duration::from_secs(20);
/// For the last words; without an answer the socket is closed.
const LEAVE_BOUND: Duration = Duration::from_secs(2);

/// Why no message could be looked at. Whatever was not acknowledged stays in the queue.
#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    #[error("no answer within {secs} s", secs = ANSWER_BOUND.as_secs())]
    TimedOut,
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The broker's own code and words.
    #[error("the broker said {code} {text}")]
    Refused { code: u16, text: String },
    #[error("the broker sent what it should not")]
    Strange,
    #[error("a message of {0} bytes is too large to be set aside")]
    TooLarge(u64),
    #[error("a name is too long for AMQP")]
    TooLong,
}

/// At work on one queue. What it has looked at and not acknowledged goes back to the queue when it is closed or dropped.
#[derive(Debug)]
pub struct Aside {
    stream: TcpStream,
    queue: String,
    /// How many more are looked at.
    left: usize,
    /// The largest frame, as consumers agree upon it, too.
    frame_max: u32,
}

/// One that cannot be read, the right to acknowledge it, and the room that it takes until then.
#[derive(Debug)]
pub struct SetAside<R> {
    pub message: Unreadable,
    tag: u64,
    _room: R,
}

impl Aside {
    /// Logs in. `most`: how many messages it looks at; those that can be read are held meanwhile, so that it comes to the
    /// others.
    pub(super) async fn open(endpoint: &Endpoint, queue: &str, most: usize) -> Result<Self, AsideError> {
        let stream = in_time(async { Ok(endpoint.dial().await?) }).await?;
        let frame_max = Purpose::Consume.frame_max();
        let mut aside = Self { stream, queue: queue.to_owned(), left: most, frame_max };
        aside.write(f::GREETING).await?;
        aside.expect(f::START).await?;
        let (user, password) = endpoint.login();
        let secret = long(&["\0", user, "\0", password.expose_secret()].concat().into_bytes());
        let [mechanism, locale, none] = [text("PLAIN")?, text("en_US")?, text("")?];
        // An empty table of what this client is.
        aside.say(0, f::START_OK, &[&[0; 4], &mechanism, &secret.ok_or(AsideError::TooLong)?, &locale]).await?;
        let tune = aside.expect(f::TUNE).await?;
        let mut tune = Rest(&tune);
        let (_channels, theirs) = (tune.u16(), tune.u32().ok_or(AsideError::Strange)?);
        let frame_max = f::agreed(frame_max, theirs);
        aside.frame_max = frame_max;
        // No heartbeats: it is gone before one would be missed.
        aside.say(0, f::TUNE_OK, &[&CHANNEL.to_be_bytes(), &frame_max.to_be_bytes(), &[0; 2]]).await?;
        aside.say(0, f::OPEN, &[&text(endpoint.vhost())?, &none, &[0]]).await?;
        aside.expect(f::OPEN_OK).await?;
        aside.say(CHANNEL, f::CHANNEL_OPEN, &[&none]).await?;
        aside.expect(f::CHANNEL_OPEN_OK).await?;
        Ok(aside)
    }

    /// The next one that cannot be read; `None`: there is none among those that it looks at. `room`: awaited with the bytes that
    /// it has before its body is read, and kept as long as it is.
    pub async fn next<Room: Future>(
        &mut self,
        room: impl FnOnce(usize) -> Room,
    ) -> Result<Option<SetAside<Room::Output>>, AsideError> {
        while self.left > 0 {
            self.left -= 1;
            let queue = text(&self.queue)?;
            self.say(CHANNEL, f::GET, &[&[0; 2], &queue, &[0]]).await?;
            let (id, arguments) = self.method().await?;
            match id {
                f::GET_EMPTY => return Ok(None),
                f::GET_OK => {}
                _ => return Err(AsideError::Strange),
            }
            let (tag, envelope, size) = self.content(&arguments).await?;
            if envelope.is_readable() {
                self.pass_over(size).await?;
                continue;
            }
            let size = usize::try_from(size).ok().filter(|_| size <= MAX_BODY).ok_or(AsideError::TooLarge(size))?;
            let room = room(size.saturating_add(envelope.properties.len())).await;
            let body = self.body(size).await?;
            return Ok(Some(SetAside { message: envelope.keep(&self.queue, body), tag, _room: room }));
        }
        Ok(None)
    }

    /// Tells the broker that it is kept elsewhere: to be called after that is committed.
    pub async fn ack<R>(&mut self, one: SetAside<R>) -> Result<(), AsideError> {
        reach(Point::DQ3).await.map_err(|_injected| AsideError::TimedOut)?;
        self.say(CHANNEL, f::ACK, &[&one.tag.to_be_bytes(), &[0]]).await
    }

    /// Gives back what it has looked at, and takes its leave.
    pub async fn close(mut self) {
        let goodbye = async {
            let reason = text("done")?;
            for (channel, close, closed) in
                [(CHANNEL, f::CHANNEL_CLOSE, f::CHANNEL_CLOSE_OK), (0, f::CLOSE, f::CLOSE_OK)]
            {
                self.say(channel, close, &[&200_u16.to_be_bytes(), &reason, &[0; 4]]).await?;
                self.expect(closed).await?;
            }
            Ok::<_, AsideError>(())
        };
        if !matches!(tokio::time::timeout(LEAVE_BOUND, goodbye).await, Ok(Ok(()))) {
            tracing::debug!("a connection for one message was closed without the broker's leave");
        }
    }

    /// What follows a message's announcement: its tag, and all but its body, whose size is told.
    async fn content(&mut self, arguments: &[u8]) -> Result<(u64, Envelope, u64), AsideError> {
        let announced = |mut rest: Rest<'_>| {
            let (tag, _redelivered) = (rest.u64()?, rest.byte()?);
            Some((tag, rest.short()?.to_vec(), rest.short()?.to_vec()))
        };
        let (tag, exchange, routing_key) = announced(Rest(arguments)).ok_or(AsideError::Strange)?;
        let mut header = self.frame_of(f::HEADER).await?;
        let described = |mut rest: Rest<'_>| {
            let (_class, _weight) = (rest.u16()?, rest.u16()?);
            rest.u64()
        };
        let size = described(Rest(&header)).ok_or(AsideError::Strange)?;
        // It may be large: no copy.
        header.drain(..BEFORE_PROPERTIES);
        let frame_max = self.frame_max;
        Ok((tag, Envelope { exchange, routing_key, properties: header, frame_max }, size))
    }

    async fn body(&mut self, size: usize) -> Result<Bytes, AsideError> {
        let mut body = Vec::with_capacity(size);
        while body.len() < size {
            body.extend_from_slice(&self.part(size - body.len()).await?);
        }
        Ok(body.into())
    }

    /// Reads a body and keeps nothing of it.
    async fn pass_over(&mut self, size: u64) -> Result<(), AsideError> {
        let mut left = size;
        while left > 0 {
            let part = self.part(usize::try_from(left).unwrap_or(usize::MAX)).await?;
            left -= u64::try_from(part.len()).unwrap_or(left);
        }
        Ok(())
    }

    /// What comes next of a body, of which so much is missing.
    async fn part(&mut self, missing: usize) -> Result<Vec<u8>, AsideError> {
        let part = self.frame_of(f::BODY).await?;
        if part.is_empty() || part.len() > missing { Err(AsideError::Strange) } else { Ok(part) }
    }

    async fn say(&mut self, channel: u16, id: Id, arguments: &[&[u8]]) -> Result<(), AsideError> {
        let frame = method(channel, id, arguments).ok_or(AsideError::TooLong)?;
        self.write(&frame).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), AsideError> {
        in_time(async { Ok(self.stream.write_all(bytes).await?) }).await
    }

    async fn expect(&mut self, wanted: Id) -> Result<Vec<u8>, AsideError> {
        match self.method().await? {
            (id, arguments) if id == wanted => Ok(arguments),
            _ => Err(AsideError::Strange),
        }
    }

    async fn method(&mut self) -> Result<(Id, Vec<u8>), AsideError> {
        let payload = self.frame_of(f::METHOD).await?;
        let mut rest = Rest(&payload);
        let id = rest.id().ok_or(AsideError::Strange)?;
        if matches!(id, f::CLOSE | f::CHANNEL_CLOSE) {
            return Err(refused(rest));
        }
        Ok((id, rest.0.to_vec()))
    }

    async fn frame_of(&mut self, kind: u8) -> Result<Vec<u8>, AsideError> {
        loop {
            let frame = in_time(read(&mut self.stream, self.frame_max)).await?;
            if frame.kind == kind {
                return Ok(frame.payload);
            }
            // In place of content there may be the word that all is over.
            let mut rest = Rest(&frame.payload);
            if frame.kind == f::METHOD && matches!(rest.id(), Some(f::CLOSE | f::CHANNEL_CLOSE)) {
                return Err(refused(rest));
            }
            if frame.kind != f::HEARTBEAT {
                return Err(AsideError::Strange);
            }
        }
    }
}

/// What it said when it closed: its code and its words.
fn refused(mut rest: Rest<'_>) -> AsideError {
    let Some(code) = rest.u16() else { return AsideError::Strange };
    AsideError::Refused { code, text: String::from_utf8_lossy(rest.short().unwrap_or_default()).into_owned() }
}

fn text(text: &str) -> Result<Vec<u8>, AsideError> {
    short(text).ok_or(AsideError::TooLong)
}

async fn in_time<T>(call: impl Future<Output = Result<T, AsideError>>) -> Result<T, AsideError> {
    tokio::time::timeout(ANSWER_BOUND, call).await.unwrap_or(Err(AsideError::TimedOut))
}

/// The next frame, of at most so many bytes unless it is one of properties.
async fn read(stream: &mut TcpStream, frame_max: u32) -> Result<Frame, AsideError> {
    let mut head = [0; f::HEAD];
    stream.read_exact(&mut head).await?;
    let mut rest = Rest(&head);
    let (Some(kind), Some(_channel), Some(size)) = (rest.byte(), rest.u16(), rest.u32()) else {
        return Err(AsideError::Strange);
    };
    let length = usize::try_from(size).map_err(|_| AsideError::Strange)?;
    match kind {
        f::HEADER if !f::fits(length, MAX_HEADER_FRAME) => return Err(AsideError::TooLarge(size.into())),
        f::HEADER => {}
        _ if !f::fits(length, frame_max) => return Err(AsideError::Strange),
        _ => {}
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    if stream.read_u8().await? != f::END {
        return Err(AsideError::Strange);
    }
    Ok(Frame { kind, payload })
}
