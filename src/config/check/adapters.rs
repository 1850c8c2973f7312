//! Adapters and their steps: names, calls, and what a step refers to.

use std::collections::{BTreeMap, BTreeSet};

use super::super::adapters::{Adapter, StepKind};
use super::super::diagnostic::Report;
use super::super::folders::Folder;
use super::super::resources::Resources;
use super::super::section::{At, Text};
use super::super::sql;
use super::{check_unique, help_for, proposable};
use crate::pipeline::Param;

pub(super) fn check(resources: Option<&Resources>, folders: &[Folder], report: &mut Report) {
    let all = || folders.iter().flat_map(|folder| &folder.adapters);
    check_unique(
        all().map(|adapter| &adapter.name),
        "the adapter",
        "adapter names are unique over all configurations",
        report,
    );
    for adapter in all() {
        let steps = adapter.steps.iter().map(|step| &step.name);
        check_unique(steps, "the step", "errors name the step: give each its own name in the adapter", report);
        for step in &adapter.steps {
            match &step.kind {
                Some(StepKind::AmqpSender { connection, destination }) => {
                    check_destination(resources, connection, destination, report);
                }
                Some(StepKind::Query { database, sql, params }) => {
                    check_database(resources, database, report);
                    check_statement(sql, params, report);
                }
                Some(StepKind::Call { adapter: callee }) => check_callee(adapter, callee, folders, report),
                None => {}
            }
        }
    }
    for folder in folders {
        check_cycles(&folder.adapters, report);
    }
}

/// A connection that exists, and a queue that it may use.
pub(super) fn check_destination(
    resources: Option<&Resources>,
    connection: &Text,
    destination: &Text,
    report: &mut Report,
) {
    let Some(resources) = resources.filter(|_| !connection.is_absent()) else { return };
    let Some(entry) = resources.amqp.iter().find(|entry| entry.name.value == connection.value) else {
        let help = help_for(connection, &proposable(resources.amqp.iter().map(|entry| &entry.name)), "amqp entry");
        report.error(connection.at, format!("no amqp entry is named `{}`", connection.shown()), help);
        return;
    };
    let listed = entry.queues.iter().any(|queue| queue.name.value == destination.value);
    if !entry.create_destination && !listed && !destination.is_absent() {
        let queues = proposable(entry.queues.iter().map(|queue| &queue.name));
        let near = destination.proposable().and_then(|text| super::did_you_mean(text, queues.iter().copied()));
        let help = near.unwrap_or_else(|| "list it under its `queues`, or set createDestination: true".to_owned());
        let name = entry.name.shown();
        let message = format!("`{}` is not listed under `{name}`, which creates no queues", destination.shown());
        report.error(destination.at, message, help);
    }
}

fn check_database(resources: Option<&Resources>, database: &Text, report: &mut Report) {
    // An empty list is a mistake of its own, reported where it stands.
    let some = |resources: &&Resources| !resources.postgres.is_empty() && !database.is_absent();
    let Some(resources) = resources.filter(some) else { return };
    if !resources.postgres.iter().any(|entry| entry.name.value == database.value) {
        let help =
            help_for(database, &proposable(resources.postgres.iter().map(|entry| &entry.name)), "postgres entry");
        report.error(database.at, format!("no postgres entry is named `{}`", database.shown()), help);
    }
}

fn check_statement(text: &Text, params: &[At<Option<Param>>], report: &mut Report) {
    if text.is_absent() {
        return;
    }
    let statement = match sql::examine(&text.value) {
        Ok(statement) => statement,
        Err(refused) => {
            let (message, help) = explain(&refused);
            report.error(text.at, message, help);
            return;
        }
    };
    for n in statement.parameters.iter().filter(|n| **n == 0 || **n > params.len()) {
        let help = match params.len() {
            0 => "list what it stands for: params: [ payload ]".to_owned(),
            1 => "`params` lists one, $1".to_owned(),
            most => format!("`params` lists {most}, $1 to ${most}"),
        };
        report.error(text.at, format!("`${n}` has no parameter"), help);
    }
    for (index, param) in params.iter().enumerate().filter(|(index, _)| !statement.parameters.contains(&(index + 1))) {
        let n = index + 1;
        report.error(param.at, format!("the statement does not use parameter {n}"), format!("use ${n}, or remove it"));
    }
}

fn explain(refused: &sql::Refused) -> (String, &'static str) {
    match refused {
        sql::Refused::Empty => {
            ("`sql` holds no statement".to_owned(), "write one, for example INSERT INTO … VALUES ($1)")
        }
        sql::Refused::Open(what) => (format!("{what} in `sql` is never closed"), "close it"),
        sql::Refused::SeveralStatements => {
            ("`sql` holds more than one statement".to_owned(), "write one step for each; they share the transaction")
        }
        sql::Refused::TransactionControl(word) => {
            (format!("a step cannot run {word}"), "Posthaste begins and ends the transaction and owns the session")
        }
    }
}

fn check_callee(caller: &Adapter, callee: &Text, folders: &[Folder], report: &mut Report) {
    if callee.is_absent() {
        return;
    }
    let named = |adapter: &&Adapter| adapter.name.value == callee.value;
    let all: Vec<_> = folders.iter().flat_map(|folder| &folder.adapters).collect();
    let own: Vec<_> = all.iter().copied().filter(|adapter| adapter.configuration == caller.configuration).collect();
    if own.iter().any(named) {
        return;
    }
    if let Some(other) = all.into_iter().find(named) {
        let message = format!("`{}` is an adapter of the configuration `{}`", callee.shown(), other.configuration);
        report.error(callee.at, message, "`call` reaches only adapters of the same configuration");
        return;
    }
    let help = help_for(callee, &proposable(own.iter().map(|adapter| &adapter.name)), "adapter");
    report.error(callee.at, format!("no adapter is named `{}`", callee.shown()), help);
}

/// Reports each ring of calls once, at the call that closes it.
fn check_cycles(adapters: &[Adapter], report: &mut Report) {
    let by_name: BTreeMap<&str, &Adapter> =
        adapters.iter().map(|adapter| (adapter.name.value.as_str(), adapter)).collect();
    let mut done = BTreeSet::new();
    for adapter in adapters {
        follow(adapter, &by_name, &mut Vec::new(), &mut done, report);
    }
}

fn follow<'a>(
    adapter: &'a Adapter,
    by_name: &BTreeMap<&str, &'a Adapter>,
    path: &mut Vec<&'a Text>,
    done: &mut BTreeSet<&'a str>,
    report: &mut Report,
) {
    if !done.insert(&adapter.name.value) {
        return;
    }
    path.push(&adapter.name);
    for step in &adapter.steps {
        let Some(StepKind::Call { adapter: callee }) = &step.kind else { continue };
        let Some(next) = by_name.get(callee.value.as_str()) else { continue };
        if let Some(from) = path.iter().position(|name| name.value == callee.value) {
            let ring: Vec<_> = path.iter().skip(from).copied().chain([callee]).map(Text::shown).collect();
            report.error(
                callee.at,
                format!("adapters call each other in a ring: {}", ring.join(" → ")),
                "remove one call",
            );
        } else {
            follow(next, by_name, path, done, report);
        }
    }
    path.pop();
}
