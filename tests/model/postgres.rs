//! The home database, reduced to what decisions depend on. Times are reduced to "past" and "not yet".

use posthaste::model::{JournalState, Mode, StoreType};

pub type Tx = u8;
/// One start of one process.
pub type Instance = u8;
pub type Queue = u8;
/// A message: each has a body of its own.
pub type Body = u8;
pub type Key = u8;
/// A business id, or the id of a message of others.
pub type Id = u8;

/// When a row was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Age {
    Never,
    Fresh,
    /// Longer ago than it takes to be suspected lost.
    Old,
}

/// A row of `journal`, with what `payload` says of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    pub tx: Tx,
    pub root: Tx,
    pub body: Body,
    pub mode: Mode,
    pub queue: Queue,
    pub state: JournalState,
    pub attempts: u8,
    pub max_attempts: u8,
    /// `not_before` is NULL or past.
    pub due: bool,
    /// `publish_after` is NULL or past.
    pub publish_due: bool,
    pub publishes: u8,
    pub published: Age,
    pub owner: Option<Instance>,
    pub running_by: Option<Instance>,
    /// `started_at` is longer ago than an attempt may take.
    pub overdue: bool,
    /// The log row that holds its body; `None`: `payload` does.
    pub log_key: Option<Key>,
    /// `payload.messagekey`.
    pub return_to: Option<Key>,
    /// Settled longer ago than T_keep.
    pub past_keep: bool,
    /// Whose open transaction has updated it.
    pub held_by: Option<Instance>,
    /// An entry in `unsettled` names it.
    pub named: bool,
    /// It stands in `due`.
    pub in_due: bool,
}

impl Row {
    /// Whether whoever looks for open rows comes by it.
    pub fn found(&self) -> bool {
        self.named || self.in_due
    }

    pub fn open(&self) -> bool {
        matches!(self.state, JournalState::Ready | JournalState::Published)
    }
}

/// A row of `ibisstore`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stored {
    pub key: Key,
    pub kind: StoreType,
    pub tx: Tx,
    pub root: Tx,
    pub body: Body,
    pub dedup_key: Option<Id>,
    pub expired: bool,
}

/// What the accepting statement inserts; kept while its transaction is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Acceptance {
    pub tx: Tx,
    pub id: Id,
    pub body: Body,
    pub mode: Mode,
    pub queue: Queue,
    pub max_attempts: u8,
    pub owner: Instance,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Database {
    pub journal: Vec<Row>,
    pub store: Vec<Stored>,
    pub inbox: Vec<(Queue, Id)>,
    /// Accepting statements that have inserted and not committed.
    pub pending: Vec<Acceptance>,
    /// By instance: LIVE, or FENCED.
    pub live: Vec<bool>,
    /// Those that have said that they stop.
    pub stopping: Vec<Instance>,
    /// Past the greatest messagekey.
    pub next_key: Key,
}

impl Database {
    pub fn row(&self, tx: Tx) -> Option<&Row> {
        self.journal.iter().find(|row| row.tx == tx)
    }

    pub fn row_mut(&mut self, tx: Tx) -> Option<&mut Row> {
        self.journal.iter_mut().find(|row| row.tx == tx)
    }

    pub fn is_live(&self, instance: Option<Instance>) -> bool {
        instance.is_some_and(|one| self.live.get(usize::from(one)).copied().unwrap_or(false))
    }

    /// Whether the instance was told to stop: what it leaves behind does not count.
    pub fn is_stopping(&self, instance: Option<Instance>) -> bool {
        instance.is_some_and(|one| self.stopping.contains(&one))
    }

    /// Inserts a row of `ibisstore` under the next key and answers it.
    pub fn keep(&mut self, kind: StoreType, row: &Row) -> Key {
        let key = self.next_key;
        self.next_key += 1;
        self.keep_at(key, kind, row)
    }

    pub fn keep_at(&mut self, key: Key, kind: StoreType, row: &Row) -> Key {
        let (tx, root, body) = (row.tx, row.root, row.body);
        self.store.push(Stored { key, kind, tx, root, body, dedup_key: None, expired: false });
        key
    }
}

/// A row as it is inserted.
pub fn fresh(tx: Tx, body: Body, mode: Mode, queue: Queue, max_attempts: u8) -> Row {
    Row {
        tx,
        root: tx,
        body,
        mode,
        queue,
        state: JournalState::Ready,
        attempts: 0,
        max_attempts,
        due: true,
        publish_due: true,
        publishes: 0,
        published: Age::Never,
        owner: None,
        running_by: None,
        overdue: false,
        log_key: None,
        return_to: None,
        past_keep: false,
        held_by: None,
        named: true,
        in_due: false,
    }
}
