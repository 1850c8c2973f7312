//! How an attempt comes to be.

/// How an attempt comes to be, and with it what its row shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The first, by the compare-and-set alone.
    First,
    /// Its start is committed.
    Started { n: i32 },
    /// The one attempt of a resend, whose claim was its start.
    Resent,
}

impl Way {
    /// `attempts` as it stands in the row.
    #[must_use]
    pub const fn seen(self) -> i32 {
        match self {
            Self::First => 0,
            Self::Started { n } => n,
            Self::Resent => 1,
        }
    }

    /// The attempt's number, counted from 1.
    #[must_use]
    pub const fn n(self) -> i32 {
        match self {
            Self::First | Self::Resent => 1,
            Self::Started { n } => n,
        }
    }
}
