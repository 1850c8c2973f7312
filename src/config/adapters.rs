//! `adapters.yml`: adapters with their receivers and steps, read one by one.

use std::path::Path;
use std::time::Duration;

use super::diagnostic::Place;
use super::keys;
use super::listeners::{Listener, listener_section};
use super::resources::entries;
use super::section::{At, Context, Section, Text, checked};
use super::sql;
use super::tree;
use super::values::{self, Wrong};
use crate::inbound::DuplicateKey;
use crate::model::TransactionAttribute;
use crate::pipeline::{Input, Param};
use crate::store::SessionTimeouts;

/// One adapter as it was read: every value checked on its own, none against another.
pub(super) struct Adapter {
    /// Its folder's name.
    pub configuration: String,
    pub name: Text,
    pub description: Option<Text>,
    pub attribute: Option<At<TransactionAttribute>>,
    pub receiver: Option<Receiver>,
    pub steps: Vec<Step>,
}

pub(super) struct Receiver {
    pub attribute: Option<At<TransactionAttribute>>,
    pub timeout: Option<Duration>,
    pub check_for_duplicates: Option<At<bool>>,
    pub duplicate_key: Option<At<DuplicateKey>>,
    /// None after a mistake in it was reported.
    pub listener: Option<Listener>,
    pub message_log: Option<MessageLog>,
    pub error_storage: Option<ErrorStorage>,
    pub max_retries: Option<At<u32>>,
    pub retry_scheme: Option<At<Vec<Duration>>>,
    pub retry_permanent_errors: Option<At<bool>>,
    pub num_threads: Option<At<usize>>,
    pub group_size: Option<At<usize>>,
}

pub(super) struct MessageLog {
    pub at: Place,
    pub slot_id: Text,
    pub retention: Option<Duration>,
}

pub(super) struct ErrorStorage {
    pub at: Place,
    pub slot_id: Text,
}

pub(super) struct Step {
    pub name: Text,
    pub input: Input,
    /// None after a mistake in it was reported.
    pub kind: Option<StepKind>,
}

pub(super) enum StepKind {
    AmqpSender { connection: Text, destination: Text },
    Query { database: Text, sql: Text, params: Vec<At<Option<Param>>> },
    Call { adapter: Text },
}

/// Reads one `adapters.yml`.
pub(super) fn read(path: &Path, configuration: &str, cx: &mut Context<'_>) -> Vec<Adapter> {
    let Some(root) = tree::read(path, &mut cx.report) else { return Vec::new() };
    cx.enter(path);
    let Some(mut section) = Section::open(root, &keys::ADAPTERS, cx) else { return Vec::new() };
    let adapters = entries(&mut section, "adapters", &keys::ADAPTER, adapter_entry, cx);
    match &adapters {
        None => section.missing("adapters", cx),
        Some(list) if list.value.is_empty() => {
            cx.report.error(list.at, "`adapters` lists no adapter", "add one, or remove the configuration's folder");
        }
        Some(_) => {}
    }
    section.finish(cx);
    let mut adapters = adapters.map(|list| list.value).unwrap_or_default();
    for adapter in &mut adapters {
        configuration.clone_into(&mut adapter.configuration);
    }
    adapters
}

fn adapter_entry(mut section: Section, cx: &mut Context<'_>) -> Adapter {
    let name = section.required_form("name", values::name, cx);
    let description = section.text("description", cx);
    let attribute = section.parsed("transactionAttribute", transaction_attribute, cx);
    let receiver = section.section("receiver", &keys::RECEIVER, cx).map(|receiver| receiver_section(receiver, cx));
    let steps = entries(&mut section, "pipeline", &keys::STEP, step_entry, cx);
    match &steps {
        None => section.missing("pipeline", cx),
        Some(list) if list.value.is_empty() => {
            cx.report.error(list.at, "`pipeline` has no steps", "an adapter does at least one thing: add a step");
        }
        Some(_) => {}
    }
    section.finish(cx);
    let steps = steps.map(|list| list.value).unwrap_or_default();
    Adapter { configuration: String::new(), name, description, attribute, receiver, steps }
}

fn receiver_section(mut section: Section, cx: &mut Context<'_>) -> Receiver {
    let count = |text: &str| {
        let count = values::number(text, 0, u64::from(values::MAX_RETRIES))?;
        Ok(u32::try_from(count).unwrap_or(values::MAX_RETRIES))
    };
    let few = |text: &str| Ok(usize::try_from(values::number(text, 1, 256)?).unwrap_or(256));
    let duplicate_key = |text: &str| {
        values::word(text, &[("MESSAGEID", DuplicateKey::MessageId), ("CORRELATIONID", DuplicateKey::CorrelationId)])
    };
    let receiver = Receiver {
        attribute: section.parsed("transactionAttribute", transaction_attribute, cx),
        timeout: section.parsed("transactionTimeout", transaction_timeout, cx).map(|timeout| timeout.value),
        check_for_duplicates: section.parsed("checkForDuplicates", values::flag, cx),
        duplicate_key: section.parsed("checkForDuplicatesMethod", duplicate_key, cx),
        message_log: message_log(&mut section, cx),
        error_storage: error_storage(&mut section, cx),
        max_retries: section.parsed("maxRetries", count, cx),
        retry_scheme: section.parsed("retryScheme", values::retry_scheme, cx),
        retry_permanent_errors: section.parsed("retryPermanentErrors", values::flag, cx),
        num_threads: section.parsed("numThreads", few, cx),
        group_size: section.parsed("groupSize", few, cx),
        listener: listener_section(&mut section, cx),
    };
    section.finish(cx);
    receiver
}

fn message_log(section: &mut Section, cx: &mut Context<'_>) -> Option<MessageLog> {
    let mut log = section.section("messageLog", &keys::MESSAGE_LOG, cx)?;
    let slot_id = log.required_form("slotId", values::slot_id, cx);
    let retention = log.parsed("retention", values::duration, cx).map(|retention| retention.value);
    let at = log.at;
    log.finish(cx);
    Some(MessageLog { at, slot_id, retention })
}

fn error_storage(section: &mut Section, cx: &mut Context<'_>) -> Option<ErrorStorage> {
    let mut storage = section.section("errorStorage", &keys::ERROR_STORAGE, cx)?;
    let slot_id = storage.required_form("slotId", values::slot_id, cx);
    let at = storage.at;
    storage.finish(cx);
    Some(ErrorStorage { at, slot_id })
}

fn transaction_attribute(text: &str) -> Result<TransactionAttribute, Wrong> {
    if matches!(text, "RequiresNew" | "NotSupported" | "Never") {
        return Err(Wrong::new(
            "Required, Mandatory or Supports",
            format!("`{text}` is not available in this version"),
        ));
    }
    let words = TransactionAttribute::ALL.iter().map(|attribute| (attribute.as_str(), *attribute)).collect::<Vec<_>>();
    values::word(text, &words)
}

/// The longest `transactionTimeout`: well below the pause at which PostgreSQL ends an idle transaction.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(80);

fn transaction_timeout(text: &str) -> Result<Duration, Wrong> {
    let timeout = values::duration(text)?;
    let lock = SessionTimeouts::default().lock;
    if timeout > lock && timeout <= LONGEST_TRANSACTION {
        return Ok(timeout);
    }
    let (lock, longest) = (values::show_duration(lock), values::show_duration(LONGEST_TRANSACTION));
    let help =
        format!("a transaction must outlive a wait for a lock ({lock}), and end before PostgreSQL ends it (90s)");
    Err(Wrong::new(format!("longer than {lock} and at most {longest}"), help))
}

fn step_entry(mut section: Section, cx: &mut Context<'_>) -> Step {
    let name = section.required_form("name", values::name, cx);
    let input = section.parsed("input", input, cx).map(|input| input.value).unwrap_or_default();
    let kind = section.kind(keys::STEP_KINDS, cx).and_then(|entry| match entry.key.as_str() {
        "amqpSender" => Section::open(entry.value, &keys::AMQP_SENDER, cx).map(|kind| amqp_sender(kind, cx)),
        "query" => Section::open(entry.value, &keys::QUERY, cx).map(|kind| query(kind, cx)),
        _ => Section::open(entry.value, &keys::CALL, cx).map(|kind| call(kind, cx)),
    });
    section.finish(cx);
    Step { name, input, kind }
}

fn input(text: &str) -> Result<Input, Wrong> {
    values::word(text, &[("payload", Input::Payload), ("originalMessage", Input::OriginalMessage)])
}

fn amqp_sender(mut section: Section, cx: &mut Context<'_>) -> StepKind {
    let connection = section.required("connection", cx);
    let destination = section.required_form("destinationName", values::queue_name, cx);
    section.finish(cx);
    StepKind::AmqpSender { connection, destination }
}

fn query(mut section: Section, cx: &mut Context<'_>) -> StepKind {
    let database = section.required("database", cx);
    let folded = section.is_folded("sql", cx);
    let mut sql = section.required_verbatim("sql", cx);
    let params = section.texts("params", cx);
    if section.take_torn() && !sql.is_absent() {
        let message = "`sql` ends at its first comma: between `{` and `}` an unquoted text does";
        cx.report.error(
            sql.at,
            message,
            "quote it: sql: '…', with '' for each quote in it; or write it below `sql: |`",
        );
        sql = Text::absent(sql.at);
    }
    if folded && sql::has_line_comment(&sql.value) {
        let message = "`sql` is folded by `>` into one line, in which `--` makes a comment of all that follows";
        cx.report.error(sql.at, message, "write `|` instead of `>`, or the comment as /* … */");
        sql = Text::absent(sql.at);
    }
    section.finish(cx);
    // A wrong one keeps its place, so that the others keep their numbers.
    let params = params.iter().map(|text| At { value: checked("params", text, param, cx), at: text.at }).collect();
    StepKind::Query { database, sql, params }
}

fn call(mut section: Section, cx: &mut Context<'_>) -> StepKind {
    let adapter = section.required("adapter", cx);
    section.finish(cx);
    StepKind::Call { adapter }
}

fn param(text: &str) -> Result<Param, Wrong> {
    let fixed = [
        ("payload", Param::Payload),
        ("originalMessage", Param::OriginalMessage),
        ("messageId", Param::MessageId),
        ("correlationId", Param::CorrelationId),
    ];
    if let Some((_, param)) = fixed.iter().find(|(word, _)| *word == text) {
        return Ok(param.clone());
    }
    if let Some(name) = text.strip_prefix("header.") {
        let name = super::listeners::header_name(name)?;
        return Ok(Param::Header(name.as_str().to_owned()));
    }
    let near = values::did_you_mean(text, fixed.iter().map(|(word, _)| *word));
    let names = "payload, originalMessage, messageId, correlationId or header.NAME";
    Err(Wrong::new(names, near.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_grow_from_lock_over_transaction_to_idle() {
        let session = SessionTimeouts::default();
        assert!(session.lock < LONGEST_TRANSACTION && LONGEST_TRANSACTION < session.idle_in_transaction);
        assert!(transaction_timeout("2s").is_err());
        assert_eq!(transaction_timeout("80s"), Ok(LONGEST_TRANSACTION));
        assert!(transaction_timeout("81s").is_err());
        assert!(session.idle_in_transaction == Duration::from_secs(90), "the help text names it");
    }

    #[test]
    fn a_header_parameter_is_read_by_lower_case_name() {
        assert_eq!(param("header.X-Tenant"), Ok(Param::Header("x-tenant".to_owned())));
        assert!(param("header.").is_err());
        assert!(param("header.a b").is_err());
    }
}
