//! Which deliveries of a channel are not settled yet, and how many of them one acknowledgement may cover: pure.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the broker calls a delivery: on each channel it counts from 1.
pub(super) type Tag = u64;

/// The unsettled deliveries of one channel; clones share them. A delivery that is never settled stays for ever: nothing
/// later is acknowledged together with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Tags(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    unsettled: BTreeSet<Tag>,
    latest: Tag,
}

impl Tags {
    /// A delivery is about to be handed out.
    pub(super) fn delivered(&self, tag: Tag) {
        let mut book = self.book();
        let next = book.latest.saturating_add(1);
        if next < tag {
            // The broker has delivered it and nobody here has seen it: nobody may acknowledge it.
            book.unsettled.insert(next);
        }
        book.unsettled.insert(tag);
        book.latest = book.latest.max(tag);
    }

    /// How many of `asked`, from its first on, `multiple` up to the last of them acknowledges, and nothing else. `asked`
    /// ascends, and is the caller's alone to settle. What comes later changes nothing: its tag is higher than any here.
    pub(super) fn together(&self, asked: &[Tag]) -> usize {
        self.book().unsettled.iter().zip(asked).take_while(|(unsettled, asked)| unsettled == asked).count()
    }

    /// Their settlement has been written. Not a moment sooner: a `multiple` up to a later one would overtake it, and the
    /// broker closes the channel over a tag that it does not know any more.
    pub(super) fn settled(&self, tags: impl IntoIterator<Item = Tag>) {
        let mut book = self.book();
        for tag in tags {
            book.unsettled.remove(&tag);
        }
    }

    /// Whether both are the same channel's.
    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
