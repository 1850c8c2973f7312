//! Names of prepared transactions (protocol §6).

use std::fmt;

use uuid::Uuid;

use crate::model::{HomeId, Incarnation, TxId};

/// One attempt's transaction over several databases: fresh for each attempt. A zombie that used its name again would
/// commit another attempt's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtrid(pub Uuid);

impl Gtrid {
    #[must_use]
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for Gtrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of one prepared branch: `posthaste:<home>:<incarnation>:<gtrid>:<branch>`, 159 bytes and no quote in them.
/// `<branch>` is its number and, after a full stop, the journal row that it works for, or the first of several, so that an
/// operator sees whose locks they are even when nothing else was written. The decision names all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gid {
    pub home: HomeId,
    pub incarnation: Incarnation,
    pub gtrid: Gtrid,
    pub branch: u8,
    pub tx_id: TxId,
}

const PREFIX: &str = "posthaste";

impl Gid {
    /// Reads a name; `None` when it is not one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        if parts.next()? != PREFIX {
            return None;
        }
        let mut id = || Uuid::parse_str(parts.next()?).ok();
        let (home, incarnation, gtrid) = (HomeId(id()?), Incarnation(id()?), Gtrid(id()?));
        let (branch, tx_id) = parts.next()?.split_once('.')?;
        let gid =
            Self { home, incarnation, gtrid, branch: branch.parse().ok()?, tx_id: TxId(Uuid::parse_str(tx_id).ok()?) };
        // What is written otherwise is somebody else's, however much it resembles ours.
        (gid.to_string() == text).then_some(gid)
    }

    /// What all gids of a home begin with.
    #[must_use]
    pub fn prefix(home: HomeId) -> String {
        format!("{PREFIX}:{home}:")
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { home, incarnation, gtrid, branch, tx_id } = self;
        write!(f, "{PREFIX}:{home}:{incarnation}:{gtrid}:{branch}.{tx_id}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid() -> Gid {
        Gid {
            home: HomeId(Uuid::new_v4()),
            incarnation: Incarnation::mint(),
            gtrid: Gtrid::mint(),
            branch: 7,
            tx_id: TxId::mint(),
        }
    }

    #[test]
    fn a_gid_is_read_as_it_was_written() {
        let gid = gid();
        assert_eq!(Gid::parse(&gid.to_string()), Some(gid));
    }

    #[test]
    fn a_gid_fits_what_postgresql_takes_and_begins_with_its_home() {
        let gid = Gid { branch: u8::MAX, ..gid() };
        assert!(gid.to_string().len() < 200);
        assert!(gid.to_string().starts_with(&Gid::prefix(gid.home)));
        assert!(!gid.to_string().contains('\''));
    }

    #[test]
    fn what_only_resembles_a_gid_is_somebody_else_s() {
        let text = gid().to_string();
        for other in [
            String::new(),
            "posthaste:".to_owned(),
            text.to_uppercase(),
            text.replace("posthaste", "other"),
            format!("{text} "),
            format!("{text}:1"),
            text.replace(":7.", ":07."),
            text.replace(":7.", ":256."),
        ] {
            assert_eq!(Gid::parse(&other), None, "{other}");
        }
    }
}
