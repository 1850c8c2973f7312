//! Log lines on their way out. Who logs never waits for who reads: a pipe that nobody empties would stop everything, the
//! heartbeat included. Bounded by bytes; the known library for it, tracing-appender, counts lines.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Between two looks whether something is to be told of lines that are missing.
const LOOK: Duration = Duration::from_secs(1);
/// What a line that waits costs beside its text.
const OVERHEAD: usize = 64;

enum Item {
    Line(Vec<u8>),
    /// To be told when everything before it is written.
    Mark(SyncSender<()>),
}

/// Lines that wait for a thread to write them, within bounds; what comes on top is dropped. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lines {
    sender: Sender<Item>,
    counts: Arc<Counts>,
}

struct Counts {
    /// Bytes that may wait.
    room: usize,
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

impl Lines {
    /// Begins to write. `look` is called now and then, with the number of lines dropped since the last call, once there is
    /// room again to tell it; it may log.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn begin(
        out: impl Write + Send + 'static,
        room: usize,
        look: impl FnMut(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let counts = Arc::new(Counts { room, waiting: AtomicUsize::new(0), dropped: AtomicU64::new(0) });
        let lines = Self { sender, counts: counts.clone() };
        let writing = move || Writer { out, counts, told: 0, failing: false, look }.run(&receiver);
        std::thread::Builder::new().name("log".to_owned()).spawn(writing)?;
        Ok(lines)
    }

    /// Lines dropped so far, since nobody read the others.
    pub(super) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything so far is written, at most so long if there is a bound.
    pub(super) fn flush(&self, bound: Option<Duration>) {
        let (done, written) = sync_channel(1);
        // Without a thread nothing is left to be written.
        if self.sender.send(Item::Mark(done)).is_err() {
            return;
        }
        let _in_time = match bound {
            Some(bound) => written.recv_timeout(bound).is_ok(),
            None => written.recv().is_ok(),
        };
    }
}

impl Write for Lines {
    /// Takes a whole line, or drops it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Counts { room, waiting, dropped } = &*self.counts;
        let cost = line.len() + OVERHEAD;
        if waiting.fetch_add(cost, Ordering::Relaxed) + cost > *room {
            waiting.fetch_sub(cost, Ordering::Relaxed);
            dropped.fetch_add(1, Ordering::Relaxed);
        } else if self.sender.send(Item::Line(line.to_owned())).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

struct Writer<W, L> {
    out: W,
    counts: Arc<Counts>,
    /// Dropped lines that were told of.
    told: u64,
    /// The last line could not be written: nor could one about it.
    failing: bool,
    look: L,
}

impl<W: Write, L: FnMut(u64)> Writer<W, L> {
    fn run(mut self, items: &Receiver<Item>) {
        let mut looked = Instant::now();
        loop {
            match items.recv_timeout(LOOK) {
                Ok(Item::Line(line)) => self.write(&line),
                Ok(Item::Mark(done)) => {
                    let _awaited = done.send(()).is_ok();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let readable = !self.failing && self.counts.waiting.load(Ordering::Relaxed) <= self.counts.room / 2;
            let dropped = self.counts.dropped.load(Ordering::Relaxed);
            if readable && (dropped > self.told || looked.elapsed() >= LOOK) {
                (self.look)(dropped - self.told);
                self.told = dropped;
                looked = Instant::now();
            }
        }
    }

    fn write(&mut self, line: &[u8]) {
        // Nobody is there to be told why: whoever read it has gone.
        self.failing = self.out.write_all(line).and_then(|()| self.out.flush()).is_err();
        if self.failing {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.counts.waiting.fetch_sub(line.len() + OVERHEAD, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    const BOUND: Option<Duration> = Some(Duration::from_secs(10));

    /// Writes a line whenever it is allowed to.
    struct Gated {
        entered: Sender<()>,
        allowed: Receiver<()>,
        written: Arc<Mutex<Vec<String>>>,
    }

    impl Write for Gated {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _seen = self.entered.send(()).is_ok();
            self.allowed.recv().map_err(|_closed| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.written.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_does_not_wait_for_a_reader_and_what_was_dropped_is_told_once_there_is_room() {
        let (entered, has_entered) = channel();
        let (allow, allowed) = channel();
        let (tell, told) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let out = Gated { entered, allowed, written: written.clone() };
        let mut lines = Lines::begin(out, 10 * (OVERHEAD + 2), move |dropped| tell.send(dropped).unwrap()).unwrap();
        for number in 0..10 {
            lines.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        has_entered.recv_timeout(Duration::from_secs(10)).unwrap();
        for _ in 0..7 {
            lines.write_all(b"x\n").unwrap();
        }
        assert_eq!(lines.dropped(), 7);
        lines.flush(Some(Duration::from_millis(1)));
        assert_eq!(told.try_recv().ok(), None, "there is no room for it yet");
        for _ in 0..10 {
            allow.send(()).unwrap();
        }
        lines.flush(BOUND);
        let written = written.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(written.concat(), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(7));
    }

    #[test]
    fn lines_that_nobody_will_read_are_counted_and_logging_goes_on() {
        let (entered, _) = channel();
        let (allow, allowed) = channel();
        drop(allow);
        let out = Gated { entered, allowed, written: Arc::default() };
        let mut lines = Lines::begin(out, 1000, |_| ()).unwrap();
        for count in 1..=3 {
            lines.write_all(b"line\n").unwrap();
            lines.flush(BOUND);
            assert_eq!(lines.dropped(), count);
        }
    }
}
