//! What the broker says when it ends a channel or a connection, and whom that is about. Pure.

use std::fmt;
use std::sync::Arc;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

/// What a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// A message that was under way: too large, or not formed as it must be.
    Message,
    /// Where messages were sent, or who may send there.
    Destination,
    /// The broker or the connection as a whole.
    Broker,
}

/// What has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Channel,
    Connection,
}

/// The broker has ended a channel or a connection, and said why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub about: About,
    pub scope: Scope,
    pub reason: Arc<str>,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.scope {
            Scope::Channel => "channel",
            Scope::Connection => "connection",
        };
        write!(f, "the broker ended the {what}: {}", self.reason)
    }
}

/// The broker's reason in an error of the library; `None`: it gave none.
pub(super) fn end_of(error: &lapin::Error) -> Option<End> {
    let ErrorKind::ProtocolError(error) = error.kind() else { return None };
    let (scope, about) = match error.kind() {
        AMQPErrorKind::Soft(soft) => (Scope::Channel, about_soft(soft)),
        AMQPErrorKind::Hard(hard) => (Scope::Connection, about_hard(hard)),
    };
    let reason = format!("{} {}", error.get_id(), error.get_message());
    Some(End { about, scope, reason: reason.into() })
}

fn about_soft(error: &AMQPSoftError) -> About {
    match error {
        AMQPSoftError::CONTENTTOOLARGE | AMQPSoftError::PRECONDITIONFAILED => About::Message,
        AMQPSoftError::NOROUTE
        | AMQPSoftError::NOCONSUMERS
        | AMQPSoftError::ACCESSREFUSED
        | AMQPSoftError::NOTFOUND
        | AMQPSoftError::RESOURCELOCKED => About::Destination,
    }
}

fn about_hard(error: &AMQPHardError) -> About {
    match error {
        AMQPHardError::FRAMEERROR | AMQPHardError::SYNTAXERROR => About::Message,
        AMQPHardError::CONNECTIONFORCED
        | AMQPHardError::INVALIDPATH
        | AMQPHardError::COMMANDINVALID
        | AMQPHardError::CHANNELERROR
        | AMQPHardError::UNEXPECTEDFRAME
        | AMQPHardError::RESOURCEERROR
        | AMQPHardError::NOTALLOWED
        | AMQPHardError::NOTIMPLEMENTED
        | AMQPHardError::INTERNALERROR => About::Broker,
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    fn end(code: u16) -> Option<(About, Scope)> {
        let error = AMQPError::from_id(code, "why".into()).unwrap();
        end_of(&lapin::Error::from(ErrorKind::ProtocolError(error))).map(|end| (end.about, end.scope))
    }

    #[test]
    fn only_size_and_form_are_the_message_s() {
        for (code, scope) in [(311, Scope::Channel), (406, Scope::Channel), (501, Scope::Connection)] {
            assert_eq!(end(code), Some((About::Message, scope)), "{code}");
        }
        for code in [312, 313, 403, 404, 405] {
            assert_eq!(end(code), Some((About::Destination, Scope::Channel)), "{code}");
        }
        for code in [320, 402, 503, 504, 505, 506, 530, 540, 541] {
            assert_eq!(end(code), Some((About::Broker, Scope::Connection)), "{code}");
        }
    }

    #[test]
    fn a_connection_that_was_lost_without_a_word_has_no_reason() {
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(end_of(&lapin::Error::from(reset)), None);
    }

    #[test]
    fn the_broker_s_own_words_are_kept() {
        let error = AMQPError::from_id(406, "PRECONDITION_FAILED - message size 9 is larger".into()).unwrap();
        let end = end_of(&lapin::Error::from(ErrorKind::ProtocolError(error))).unwrap();
        assert_eq!(end.to_string(), "the broker ended the channel: 406 PRECONDITION_FAILED - message size 9 is larger");
    }
}
