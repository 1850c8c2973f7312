//! Where a step writes.

use super::database::Database;

/// Where a step writes.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// In the home's own transaction.
    Home,
    /// In a branch.
    Branch(&'a Database),
}

impl PartialEq for Target<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.branch().map(Database::name) == other.branch().map(Database::name)
    }
}

impl<'a> Target<'a> {
    /// `None`: the home.
    #[must_use]
    pub fn branch(self) -> Option<&'a Database> {
        match self {
            Self::Home => None,
            Self::Branch(database) => Some(database),
        }
    }
}
