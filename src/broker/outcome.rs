//! What is known of a published message, and how it is read from the broker's answers. Pure.

use std::sync::Arc;

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
    /// The broker refused the message; nobody has it.
    #[error("the broker refused the message")]
    Nacked,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    #[error("no confirm in time")]
    NoConfirm,
    #[error("the channel or the connection ended before the confirm")]
    Lost,
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

/// Decides a whole group at once. An unroutable message is positively confirmed, and the library hangs returns on the
/// wrong confirms (protocol §8): returns are matched by message id and queue, and a confirm counts only when no return
/// of the group can be missing any more (`settled`).
pub(super) fn judge(
    sent: &[(TxId, &str)],
    answers: &[Answer],
    returned: &[ReturnedMessage],
    settled: bool,
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
            Answer::Failed => Err(PublishError::Unknown(Doubt::Lost)),
            Answer::Open => Err(PublishError::Unknown(Doubt::NoConfirm)),
        }
    };
    sent.iter().zip(answers).map(|(sent, answer)| verdict(sent, answer)).collect()
}

#[cfg(test)]
mod tests {
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
        let verdicts = judge(&sent(&[1, 2, 3]), &answers, &[came_back(3)], true);
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
        assert_eq!(judge(&sent, &[Answer::Acked; 2], &[came_back(1)], true), [gone(), Ok(Confirmed(()))]);
    }

    #[test]
    fn no_confirm_counts_while_a_return_may_be_missing() {
        let verdicts = judge(&sent(&[1, 2, 3]), &[Answer::Acked, Answer::Open, Answer::Failed], &[], false);
        assert_eq!(verdicts, [unknown(Doubt::Unsettled), unknown(Doubt::NoConfirm), unknown(Doubt::Lost)]);
    }

    #[test]
    fn a_return_that_nobody_knows_casts_doubt_on_every_confirm() {
        let stranger = ReturnedMessage { tx_id: None, ..came_back(1) };
        assert_eq!(judge(&sent(&[1]), &[Answer::Acked], &[stranger], true), [unknown(Doubt::Unsettled)]);
    }

    #[test]
    fn a_nack_is_a_refusal_even_when_the_group_did_not_settle() {
        assert_eq!(judge(&sent(&[1]), &[Answer::Nacked], &[], false), [Err(PublishError::Nacked)]);
    }
}
