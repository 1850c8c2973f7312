//! A small set of branches, by number.

use std::fmt;

/// The most databases beside the home that one transaction may write to.
pub const MAX_BRANCHES: u8 = 32;

/// Branches of one transaction; numbers run from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Branches(u32);

impl Branches {
    pub const NONE: Self = Self(0);

    /// The first `count` branches, at most [`MAX_BRANCHES`].
    #[must_use]
    pub fn first(count: u8) -> Self {
        (0..count).fold(Self::NONE, Self::with)
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn has(self, branch: u8) -> bool {
        self.0 & bit(branch) != 0
    }

    #[must_use]
    pub fn with(self, branch: u8) -> Self {
        Self(self.0 | bit(branch))
    }

    #[must_use]
    pub fn without(self, branch: u8) -> Self {
        Self(self.0 & !bit(branch))
    }

    /// All that are in either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..MAX_BRANCHES).filter(move |branch| self.has(*branch))
    }
}

/// Beyond the last branch: no bit.
fn bit(branch: u8) -> u32 {
    1_u32.checked_shl(u32::from(branch)).unwrap_or(0)
}

impl fmt::Debug for Branches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
