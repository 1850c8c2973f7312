//! Which deliveries of a channel are not settled yet, how large they are, and how many of them one acknowledgement may cover:
//! pure.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What the broker calls a delivery: on each channel it counts from 1.
pub(super) type Tag = u64;

/// Bytes of bodies that the sessions which share it hold unsettled, all together. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Held(Arc<AtomicUsize>);

impl Held {
    /// So many now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The unsettled deliveries of one channel; clones share them. A delivery that is never settled stays for ever: nothing
/// later is acknowledged together with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Tags(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    /// Its own bytes and others'.
    held: Held,
    /// Some were settled.
    less: Notify,
}

#[derive(Debug, Default)]
struct Book {
    /// With the bytes of their bodies.
    unsettled: BTreeMap<Tag, usize>,
    latest: Tag,
    /// All of those.
    bytes: usize,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let book = self.book.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.held.take(book.bytes);
    }
}

impl Tags {
    /// Whose bytes count together with others'.
    pub(super) fn sharing(held: Held) -> Self {
        Self(Arc::new(Shared { book: Mutex::default(), held, less: Notify::new() }))
    }

    /// A delivery with so many bytes is about to be handed out.
    pub(super) fn delivered(&self, tag: Tag, bytes: usize) {
        let mut book = self.book();
        let next = book.latest.saturating_add(1);
        if next < tag {
            // The broker has delivered it and nobody here has seen it: nobody may acknowledge it.
            book.unsettled.insert(next, 0);
        }
        let before = book.unsettled.insert(tag, bytes).unwrap_or(0);
        book.bytes = book.bytes.saturating_sub(before).saturating_add(bytes);
        self.0.held.add(bytes);
        self.0.held.take(before);
        book.latest = book.latest.max(tag);
    }

    /// How many of `asked`, from its first on, `multiple` up to the last of them acknowledges, and nothing else. `asked`
    /// ascends, and is the caller's alone to settle. What comes later changes nothing: its tag is higher than any here.
    pub(super) fn together(&self, asked: &[Tag]) -> usize {
        self.book().unsettled.keys().zip(asked).take_while(|(unsettled, asked)| unsettled == asked).count()
    }

    /// Their settlement has been written. Not a moment sooner: a `multiple` up to a later one would overtake it, and the
    /// broker closes the channel over a tag that it does not know any more.
    pub(super) fn settled(&self, tags: impl IntoIterator<Item = Tag>) {
        let mut book = self.book();
        for tag in tags {
            let bytes = book.unsettled.remove(&tag).unwrap_or(0);
            book.bytes = book.bytes.saturating_sub(bytes);
            self.0.held.take(bytes);
        }
        drop(book);
        self.0.less.notify_waiters();
    }

    /// Bytes that are not settled.
    pub(super) fn bytes(&self) -> usize {
        self.book().bytes
    }

    /// The same, with what others hold.
    pub(super) fn bytes_of_all(&self) -> usize {
        self.0.held.bytes()
    }

    /// Waits until no more than so many bytes are unsettled.
    pub(super) async fn until_at_most(&self, bytes: usize) {
        loop {
            let mut less = pin!(self.0.less.notified());
            // From here on nothing is missed.
            less.as_mut().enable();
            if self.bytes() <= bytes {
                return;
            }
            less.await;
        }
    }

    /// Whether both are the same channel's.
    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
