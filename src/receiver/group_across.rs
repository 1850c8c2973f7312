//! A group whose steps write to several databases: one transaction in each of them, and one decision for all (protocol §§6,
//! 7).

use std::collections::BTreeSet;
use std::time::Instant;

use futures_util::future::try_join_all;

use super::ReceiverSettings;
use super::attempt::{Blame, blame};
use super::group::{Fate, Member, Together, Tried, bound, infrastructure, rolled_back};
use super::process::Processor;
use crate::model::TxId;
use crate::pipeline::Transaction;
use crate::store::{Database, FailedCall, InRows, StepCall, StoreError, Target, Wanted};
use crate::txn::driver::NotCommitted;
use crate::txn::faults::{Point, reach};

/// Tries of one group: each leaves out a member that failed, or tells which it was. Who is left has a transaction of its own.
const TRIES: usize = 4;

/// How a try ended.
enum Try {
    Ended(Together),
    /// Undone: this member failed, by its place among those that were tried.
    Failed(usize),
    /// Undone: one of them failed, and rows that went together do not tell which.
    OneOfThem,
}

/// Why the work of a group came to nothing.
enum Broken {
    Failed { by: Option<usize>, error: StoreError },
    Late,
}

impl Member<'_> {
    pub(super) fn reaches_others(&self) -> bool {
        self.steps.iter().any(|step| step.target.branch().is_some())
    }
}

impl Processor {
    /// Tries members of which some write to other databases. Who fails is left out and tried alone; a savepoint for each
    /// would have to be one in every database.
    pub(super) async fn across(&self, settings: &ReceiverSettings, members: Vec<Member<'_>>, fates: &mut [Fate]) {
        // Where many fail, groups only cost their work.
        if self.pace.careful() {
            return;
        }
        let Some(route_of_all) = members.first().and_then(route) else { return };
        let with_it = |member: &Member<'_>| route(member).is_some_and(|route| route == route_of_all);
        let mut left: Vec<Member<'_>> = members.into_iter().filter(with_it).collect();
        let mut in_rows = true;
        for _try in 0..TRIES {
            if left.len() < 2 {
                return;
            }
            match self.all_of(settings, &route_of_all, &left, in_rows).await {
                Try::Ended(end) => return self.tell(settings, &left, end, fates).await,
                Try::Failed(at) => left = without(left, at),
                Try::OneOfThem if in_rows => in_rows = false,
                Try::OneOfThem => break,
            }
            if let Err(injected) = reach(Point::GR2).await {
                tracing::debug!(%injected, "a group is not tried again");
                return;
            }
        }
        self.pace.failed();
    }

    /// All or none of them, in all databases.
    async fn all_of(
        &self,
        settings: &ReceiverSettings,
        route: &[Target<'_>],
        members: &[Member<'_>],
        in_rows: bool,
    ) -> Try {
        let began = Instant::now();
        let (mut transaction, taken) = match self.take_across(settings, route, members).await {
            Ok(open) => open,
            Err(end) => return end,
        };
        let run = self.run_across(&mut transaction, members, &taken, route, in_rows);
        let run = match tokio::time::timeout(bound(settings), run).await {
            Ok(run) => run,
            Err(_elapsed) => Err(Broken::Late),
        };
        match run {
            Ok(()) => {}
            Err(Broken::Failed { by, error }) => {
                return self.undo_across(transaction, by, &error, members.len()).await;
            }
            Err(Broken::Late) => {
                self.pace.grouped_in_vain();
                transaction.cancel().await;
                let end = rolled_back("not finished in time", members.len()).await;
                return Try::Ended(end.unwrap_or(Together::Undone));
            }
        }
        let tried = |member: &Member<'_>| {
            if taken.contains(&member.envelope.tx_id) { Tried::Done } else { Tried::NotTaken }
        };
        let end = self.decide(transaction, members, members.iter().map(tried).collect()).await;
        if matches!(end, Together::Committed(_)) {
            self.pace.grouped(began.elapsed(), members.len());
        }
        Try::Ended(end)
    }

    /// Opens a transaction in each database, and takes the rows.
    ///
    /// # Errors
    /// How the try has ended.
    async fn take_across(
        &self,
        settings: &ReceiverSettings,
        route: &[Target<'_>],
        members: &[Member<'_>],
    ) -> Result<(Transaction, BTreeSet<TxId>), Try> {
        let home = self.store.begin_work().await.map_err(|error| Try::Ended(infrastructure(&error)))?;
        let wanted: Vec<Wanted<'_>> = members.iter().map(Member::wanted).collect();
        let take = home.take_group(&self.store, &settings.destination, &wanted);
        // Open by the time when it is known whose rows are ours; nothing is done in them before.
        let open = try_join_all(route.iter().filter_map(|target| target.branch()).map(Database::begin));
        match tokio::join!(biased; take, open) {
            (Ok(taken), Ok(branches)) => {
                let taken = taken.into_iter().map(|(tx_id, _)| tx_id).collect();
                Ok((Transaction::of(home, branches), taken))
            }
            (Ok(_), Err(error)) => {
                home.roll_back(&self.store).await;
                Err(Try::Ended(infrastructure(&error)))
            }
            (Err(error), opened) => {
                let transaction = Transaction::of(home, opened.unwrap_or_default());
                Err(self.undo_across(transaction, None, &error, members.len()).await)
            }
        }
    }

    /// One database after the other, as each message would come to them alone: two transactions that want the same rows meet
    /// in the first of these, and neither holds in one database what the other waits for in another, where no server could
    /// see it.
    async fn run_across(
        &self,
        transaction: &mut Transaction,
        members: &[Member<'_>],
        taken: &BTreeSet<TxId>,
        route: &[Target<'_>],
        in_rows: bool,
    ) -> Result<(), Broken> {
        for target in route {
            let (mut owners, mut messages) = (Vec::new(), Vec::new());
            let ours = members.iter().enumerate().filter(|(_, member)| taken.contains(&member.envelope.tx_id));
            for (at, member) in ours {
                let here = member.steps.iter().filter(|step| step.target == *target);
                let calls: Vec<&StepCall<'_>> = here.map(|step| &step.call).collect();
                owners.extend(calls.iter().map(|_call| at));
                messages.push(calls);
            }
            let rows = InRows::of(&messages).filter(|_rows| in_rows);
            let done = self.run_in(transaction, target, &messages.concat(), rows.as_ref()).await;
            done.map_err(|(failed, told)| Broken::Failed {
                by: owners.get(failed.at).copied().filter(|_at| told),
                error: failed.error,
            })?;
        }
        Ok(())
    }

    /// The part of one database. A failure comes with whether its place is that of a call.
    async fn run_in(
        &self,
        transaction: &mut Transaction,
        target: &Target<'_>,
        calls: &[&StepCall<'_>],
        rows: Option<&InRows<'_>>,
    ) -> Result<(), (FailedCall, bool)> {
        let store = &self.store;
        let nowhere = |error| (FailedCall { at: calls.len(), error }, false);
        match target {
            Target::Home => match rows {
                Some(rows) if store.takes_rows(rows).await.map_err(nowhere)? => {
                    transaction.home.execute_in_rows(store, rows).await.map_err(nowhere)
                }
                Some(_) | None => transaction.home.execute_all(store, calls).await.map_err(|failed| (failed, true)),
            },
            Target::Branch(database) => {
                let branch = transaction.branch(database).await.map_err(nowhere)?;
                match rows {
                    Some(rows) if branch.takes_rows(rows).await.map_err(nowhere)? => {
                        branch.execute_in_rows(rows).await.map_err(nowhere)
                    }
                    Some(_) | None => branch.execute_all(calls).await.map_err(|failed| (failed, true)),
                }
            }
        }
    }

    async fn undo_across(
        &self,
        transaction: Transaction,
        by: Option<usize>,
        error: &StoreError,
        members: usize,
    ) -> Try {
        transaction.roll_back(&self.store).await;
        let end = match (blame(error), by) {
            (Blame::Message | Blame::Unclear, Some(at)) => Try::Failed(at),
            (Blame::Message | Blame::Unclear, None) => Try::OneOfThem,
            (Blame::Nobody, _) => {
                self.pace.grouped_in_vain();
                Try::Ended(Together::Undone)
            }
        };
        rolled_back(&error.to_string(), members).await.map_or(end, Try::Ended)
    }

    /// PREPARE, the decision, COMMIT PREPARED.
    async fn decide(&self, transaction: Transaction, members: &[Member<'_>], tried: Vec<Tried>) -> Together {
        let mut done = members.iter().zip(&tried).filter(|(_, tried)| matches!(tried, Tried::Done));
        let first = done.next().or(members.iter().zip(&tried).next());
        let Some((first, _)) = first else { return Together::Committed(tried) };
        let others: Vec<TxId> = done.map(|(member, _)| member.envelope.tx_id).collect();
        match transaction.commit(&self.store, first.envelope.tx_id, &others).await {
            Ok(()) => Together::Committed(tried),
            // Its branches may still be prepared somewhere: whoever tries again at once would wait for their locks.
            Err(NotCommitted::RolledBack(error)) if error.is_infrastructure() => {
                let end = Together::Infrastructure { reason: error.to_string(), undone: true };
                rolled_back(&error.to_string(), tried.len()).await.unwrap_or(end)
            }
            // A constraint that was deferred, say: only a transaction of its own tells whose.
            Err(NotCommitted::RolledBack(error)) => {
                self.pace.grouped_in_vain();
                rolled_back(&error.to_string(), tried.len()).await.unwrap_or(Together::Undone)
            }
            // The next start of each, which locks its row, tells (DQ2).
            Err(NotCommitted::Unknown(error)) => Together::Infrastructure { reason: error.to_string(), undone: false },
            Err(NotCommitted::Defect(reason)) => Together::Infrastructure { reason, undone: false },
        }
    }
}

/// The databases in which a member's statements are, in the order in which it comes to them; `None`: it comes back to one.
/// What it sends locks nothing that others want, wherever it stands.
fn route<'p>(member: &Member<'p>) -> Option<Vec<Target<'p>>> {
    let queries = member.steps.iter().filter(|step| matches!(step.call, StepCall::Query { .. }));
    let mut route = once_each(queries.map(|step| step.target))?;
    if !route.contains(&Target::Home) {
        route.push(Target::Home);
    }
    Some(route)
}

/// What is visited, in this order; `None` when something is come back to.
fn once_each<T: PartialEq>(visits: impl Iterator<Item = T>) -> Option<Vec<T>> {
    let mut seen: Vec<T> = Vec::new();
    for one in visits {
        if seen.last() == Some(&one) {
            continue;
        }
        if seen.contains(&one) {
            return None;
        }
        seen.push(one);
    }
    Some(seen)
}

fn without<T>(all: Vec<T>, at: usize) -> Vec<T> {
    all.into_iter().enumerate().filter(|(place, _)| *place != at).map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_known_unless_it_comes_back_to_a_database() {
        let route = |visits: &str| once_each(visits.chars()).map(String::from_iter);
        for (visits, wanted) in [("", ""), ("a", "a"), ("aab", "ab"), ("habb", "hab")] {
            assert_eq!(route(visits).as_deref(), Some(wanted), "{visits}");
        }
        for visits in ["aba", "haah", "abcb"] {
            assert_eq!(route(visits), None, "{visits}");
        }
    }

    #[test]
    fn who_failed_is_left_out_and_nobody_else() {
        assert_eq!(without(vec!['a', 'b', 'c'], 1), ['a', 'c']);
        assert_eq!(without(vec!['a', 'b', 'c'], 3), ['a', 'b', 'c']);
    }
}
