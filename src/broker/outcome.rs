//! What is known of a published message, and how it is read from the broker's answers. Pure.

use std::sync::Arc;

use super::end::{About, End};
use super::wire::WireError;
use crate::model::TxId;
use crate::txn::faults::Injected;

/// The broker has the message in a queue, safely. Only `certain` and `judge` make one.
#[must_use = "a confirm nobody looks at is a message nobody knows the fate of"]
#[derive(Debug, PartialEq, Eq)]
pub struct Confirmed(());

/// A message was not confirmed; the variants say what may be taken for granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing reached the broker, and nothing will.
    #[error("not sent: {0}")]
    NotSent(NotSent),
    /// The broker has no such queue; nobody has the message.
    #[error("no queue took the message: {reason}")]
    Returned { reason: String },
    /// The broker did not take the message and does not say why: its queue is full, or cannot work. Nobody has it.
    #[error("the broker refused the message")]
    Nacked,
    /// The broker does not take this very message: too large, or not formed as it must be. Nobody has it.
    #[error("the broker does not take the message: {reason}")]
    Refused { reason: Arc<str> },
    /// It was sent, or part of it: it may have been delivered, or may be later.
    #[error("not known whether the broker has the message: {0}")]
    Unknown(Doubt),
}

impl From<Injected> for PublishError {
    fn from(_injected: Injected) -> Self {
        Self::Unknown(Doubt::Lost)
    }
}

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    #[error("no connection to the broker: {0}")]
    Down(Arc<str>),
    #[error("the broker takes no messages now: {0}")]
    Blocked(Arc<str>),
    #[error("too much is waiting to be published")]
    Full,
    #[error("its turn did not come in time")]
    Expired,
    #[error("the publisher is closed")]
    Closed,
    #[error(transparent)]
    Unfit(#[from] WireError),
}

/// Why it is not known what the broker did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    #[error("no confirm in time")]
    NoConfirm,
    #[error("the channel or the connection ended before the confirm")]
    Lost,
    /// The same, with the broker's reason; which of several messages under way it was about, it does not say.
    #[error("no confirm: {0}")]
    Ended(End),
    /// A confirm came, but returns of the same channel may be missing.
    #[error("the channel ended before it could be told confirms and returns apart")]
    Unsettled,
}

/// What the broker said to one publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Acked,
    Nacked,
    /// The publish or its confirm failed.
    Failed,
    /// Nothing yet.
    Open,
}

/// A message that came back, named by what the broker tells about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReturnedMessage {
    pub(super) tx_id: Option<TxId>,
    pub(super) queue: String,
    pub(super) reason: String,
}

/// What can be said of one message before its group is judged, provided that everything which was answered before it was
/// has been read. The library gives a return to whichever confirm it resolves next, and an unroutable message's return comes
/// before its confirm: so while none was seen, none of what is confirmed has come back (ADR 12).
pub(super) fn certain(answer: Answer, returned: &[ReturnedMessage]) -> Option<Confirmed> {
    (answer == Answer::Acked && returned.is_empty()).then_some(Confirmed(()))
}

/// How a group's channel or connection ended, when the broker gave a reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended<'a> {
    pub(super) end: &'a End,
    /// Nothing else was under way on what has ended.
    pub(super) alone: bool,
}

/// What is to be said of a message whose channel or connection ended before its confirm. Blamed is only who was alone there:
/// the broker does not name the message that it means.
fn ended(ended: Option<Ended<'_>>) -> PublishError {
    let Some(Ended { end, alone }) = ended else { return PublishError::Unknown(Doubt::Lost) };
    match end.about {
        About::Message if alone => PublishError::Refused { reason: end.reason.clone() },
        About::Message | About::Destination | About::Broker => PublishError::Unknown(Doubt::Ended(end.clone())),
    }
}

/// Decides a whole group at once. An unroutable message is positively confirmed, and the library hangs returns on the
/// wrong confirms (protocol §8): returns are matched by message id and queue, and a confirm counts only when no return
/// of the group can be missing any more (`settled`).
pub(super) fn judge(
    sent: &[(TxId, &str)],
    answers: &[Answer],
    returned: &[ReturnedMessage],
    settled: bool,
    end: Option<Ended<'_>>,
) -> Vec<Result<Confirmed, PublishError>> {
    let is = |one: &ReturnedMessage, sent: &(TxId, &str)| one.tx_id == Some(sent.0) && one.queue == sent.1;
    // A return that is nobody's could be anybody's.
    let settled = settled && returned.iter().all(|one| sent.iter().any(|sent| is(one, sent)));
    let verdict = |sent: &(TxId, &str), answer: &Answer| {
        if let Some(one) = returned.iter().find(|one| is(one, sent)) {
            return Err(PublishError::Returned { reason: one.reason.clone() });
        }
        match answer {
            Answer::Acked if settled => Ok(Confirmed(())),
            Answer::Acked => Err(PublishError::Unknown(Doubt::Unsettled)),
            Answer::Nacked => Err(PublishError::Nacked),
            Answer::Failed => Err(ended(end)),
            Answer::Open => Err(PublishError::Unknown(Doubt::NoConfirm)),
        }
    };
    sent.iter().zip(answers).map(|(sent, answer)| verdict(sent, answer)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::end::Scope;
    use super::*;

    fn id(number: u128) -> TxId {
        TxId(uuid::Uuid::from_u128(number))
    }

    fn sent(numbers: &[u128]) -> Vec<(TxId, &'static str)> {
        numbers.iter().map(|number| (id(*number), "q")).collect()
    }

    fn came_back(number: u128) -> ReturnedMessage {
        ReturnedMessage { tx_id: Some(id(number)), queue: "q".to_owned(), reason: "NO_ROUTE".to_owned() }
    }

    fn gone() -> Result<Confirmed, PublishError> {
        Err(PublishError::Returned { reason: "NO_ROUTE".to_owned() })
    }

    fn unknown(doubt: Doubt) -> Result<Confirmed, PublishError> {
        Err(PublishError::Unknown(doubt))
    }

    #[test]
    fn a_returned_message_is_found_by_its_id_whichever_confirm_carried_it() {
        let answers = [Answer::Acked; 3];
        let verdicts = judge(&sent(&[1, 2, 3]), &answers, &[came_back(3)], true, None);
        assert_eq!(verdicts, [Ok(Confirmed(())), Ok(Confirmed(())), gone()]);
    }

    #[test]
    fn a_confirm_is_certain_until_the_first_return_has_come_back_and_nothing_else_ever_is() {
        assert_eq!(certain(Answer::Acked, &[]), Some(Confirmed(())));
        assert_eq!(certain(Answer::Acked, &[came_back(7)]), None);
        for answer in [Answer::Nacked, Answer::Failed, Answer::Open] {
            assert_eq!(certain(answer, &[]), None);
        }
    }

    #[test]
    fn the_same_id_for_another_queue_is_another_message() {
        let sent = [(id(1), "q"), (id(1), "r")];
        assert_eq!(judge(&sent, &[Answer::Acked; 2], &[came_back(1)], true, None), [gone(), Ok(Confirmed(()))]);
    }

    #[test]
    fn no_confirm_counts_while_a_return_may_be_missing() {
        let verdicts = judge(&sent(&[1, 2, 3]), &[Answer::Acked, Answer::Open, Answer::Failed], &[], false, None);
        assert_eq!(verdicts, [unknown(Doubt::Unsettled), unknown(Doubt::NoConfirm), unknown(Doubt::Lost)]);
    }

    #[test]
    fn a_return_that_nobody_knows_casts_doubt_on_every_confirm() {
        let stranger = ReturnedMessage { tx_id: None, ..came_back(1) };
        assert_eq!(judge(&sent(&[1]), &[Answer::Acked], &[stranger], true, None), [unknown(Doubt::Unsettled)]);
    }

    #[test]
    fn whoever_was_alone_is_blamed_for_an_end_that_is_about_a_message_and_nobody_else_ever_is() {
        let end = |about| End { about, scope: Scope::Channel, reason: "406 too large".into() };
        let said = |numbers: &[u128], end: &End, alone| {
            judge(&sent(numbers), &vec![Answer::Failed; numbers.len()], &[], true, Some(Ended { end, alone }))
        };
        let message = end(About::Message);
        let refused = Err(PublishError::Refused { reason: "406 too large".into() });
        assert_eq!(said(&[1], &message, true), [refused]);
        let in_doubt = |end: &End| unknown(Doubt::Ended(end.clone()));
        assert_eq!(said(&[1, 2], &message, false), [in_doubt(&message), in_doubt(&message)]);
        for about in [About::Destination, About::Broker] {
            assert_eq!(said(&[1], &end(about), true), [in_doubt(&end(about))]);
        }
        assert_eq!(judge(&sent(&[1]), &[Answer::Failed], &[], true, None), [unknown(Doubt::Lost)]);
    }

    #[test]
    fn a_nack_is_a_refusal_even_when_the_group_did_not_settle() {
        assert_eq!(judge(&sent(&[1]), &[Answer::Nacked], &[], false, None), [Err(PublishError::Nacked)]);
    }
}
