//! The statements of `prove`: where each acceptance stands, and what must never be (protocol §2).

/// A state of the tables that no history of promises kept can lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// I1, I5: a message that was accepted, adopted, sent or resent lately has no journal row.
    JournalRowGone,
    /// I1: an open journal row has no body to send or process.
    BodyGone,
    /// I1: a journal row says ERROR, and no error store row, no resend and no deletion on record answers for it.
    ErrorGone,
    /// I1: one journal row stands in the error store more than once.
    ErrorTwice,
    /// I1: it stands in the error store and is done, or on its way.
    ErrorAndDone,
    /// I7.
    TooManyAttempts,
    /// I1: a root was done twice, or one error store row was resent with success twice.
    DoneTwice,
    /// I4: a (slotId, key) stands twice.
    AcceptedTwice,
    /// I4: the unique index that detects duplicates is missing, invalid or another one.
    DedupIndex,
    /// A row says what no row can say: the tables on the way of each message have no check constraints.
    StrangeRow,
    /// I9: an open journal row that nobody looks for.
    UnwatchedRow,
}

/// All of them, in the order in which they are told.
pub const RULES: [Rule; 11] = [
    Rule::JournalRowGone,
    Rule::BodyGone,
    Rule::ErrorGone,
    Rule::ErrorTwice,
    Rule::ErrorAndDone,
    Rule::TooManyAttempts,
    Rule::DoneTwice,
    Rule::AcceptedTwice,
    Rule::DedupIndex,
    Rule::StrangeRow,
    Rule::UnwatchedRow,
];

impl Rule {
    /// The name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JournalRowGone => "journalRowGone",
            Self::BodyGone => "bodyGone",
            Self::ErrorGone => "errorGone",
            Self::ErrorTwice => "errorTwice",
            Self::ErrorAndDone => "errorAndDone",
            Self::TooManyAttempts => "tooManyAttempts",
            Self::DoneTwice => "doneTwice",
            Self::AcceptedTwice => "acceptedTwice",
            Self::DedupIndex => "dedupIndex",
            Self::StrangeRow => "strangeRow",
            Self::UnwatchedRow => "unwatchedRow",
        }
    }

    /// What is wrong, for people.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::JournalRowGone => {
                "accepted, adopted, sent or resent within T_keep, but without a journal row (I1, I5)"
            }
            Self::BodyGone => "open, but the body is gone (I1)",
            Self::ErrorGone => "failed, but neither in the error store nor resent nor deleted on record (I1)",
            Self::ErrorTwice => "more than once in the error store (I1)",
            Self::ErrorAndDone => "in the error store, and done or on its way as well (I1)",
            Self::TooManyAttempts => "more attempts than maxRetries + 1 (I7)",
            Self::DoneTwice => "took effect twice (I1)",
            Self::AcceptedTwice => "accepted twice under one key (I4)",
            Self::DedupIndex => "index ibisstore_dedup is missing, invalid or not the one of the schema (I4)",
            Self::StrangeRow => "a type, state, mode or number of attempts that no row can have",
            Self::UnwatchedRow => "open, but named neither in unsettled nor in due: nobody looks for it (I9)",
        }
    }

    /// Selects `tx_id` and, where at hand, `message_id` of what offends. `bound` knows since when rows are young.
    const fn offenders(self) -> &'static str {
        match self {
            Self::JournalRowGone => {
                "SELECT tx_id, max(message_id) AS message_id FROM (
                     SELECT a.tx_id, a.messageid::text AS message_id FROM :ibisstore a
                     WHERE a.type = 'A' AND a.messagedate > (SELECT young FROM bound)
                       AND NOT EXISTS (SELECT FROM posthaste.journal j WHERE j.tx_id = a.root_id)
                       AND a.root_id NOT IN (SELECT root_id FROM posthaste.journal WHERE tx_id <> root_id)
                       AND a.root_id NOT IN (SELECT root_id FROM :ibisstore WHERE type IN ('E', 'H', 'I', 'M'))
                       AND a.root_id NOT IN (SELECT root_id FROM deletions)
                     UNION ALL
                     SELECT k.tx_id, NULL FROM posthaste.lineage k
                     WHERE k.tx_id > (SELECT young_id FROM bound)
                       AND NOT EXISTS (SELECT FROM posthaste.journal j WHERE j.tx_id = k.tx_id)
                     UNION ALL
                     SELECT i.tx_id, i.message_id::text FROM posthaste.inbox i
                     WHERE i.tx_id > (SELECT young_id FROM bound)
                       AND NOT EXISTS (SELECT FROM posthaste.journal j WHERE j.tx_id = i.tx_id)
                     UNION ALL
                     SELECT p.tx_id, p.message_id::text FROM posthaste.payload p
                     WHERE NOT EXISTS (SELECT FROM posthaste.journal j WHERE j.tx_id = p.tx_id)) lost
                 GROUP BY tx_id"
            }
            Self::BodyGone => {
                "SELECT j.tx_id, NULL::text AS message_id FROM posthaste.journal j
                 WHERE j.state IN ('READY', 'PUBLISHED')
                   AND NOT EXISTS (SELECT FROM :ibisstore l WHERE l.messagekey = j.log_key)
                   AND (j.log_key IS NOT NULL
                        OR NOT EXISTS (SELECT FROM posthaste.payload p WHERE p.tx_id = j.tx_id))"
            }
            Self::ErrorGone => {
                "SELECT u.tx_id, NULL::text AS message_id FROM unanswered u
                 WHERE u.root_id IN (SELECT root_id FROM gone)"
            }
            Self::ErrorTwice => {
                "SELECT tx_id, min(messageid::text) AS message_id FROM :ibisstore WHERE type = 'E'
                 GROUP BY tx_id HAVING count(*) > 1"
            }
            Self::ErrorAndDone => {
                "SELECT e.tx_id, e.messageid::text AS message_id FROM :ibisstore e
                 JOIN posthaste.journal j ON j.tx_id = e.tx_id AND j.state <> 'ERROR' WHERE e.type = 'E'
                 UNION
                 SELECT e.tx_id, e.messageid::text FROM :ibisstore e
                 JOIN posthaste.payload p ON p.messagekey = e.messagekey
                 JOIN posthaste.journal c ON c.tx_id = p.tx_id AND c.state <> 'ERROR' WHERE e.type = 'E'"
            }
            Self::TooManyAttempts => {
                "SELECT tx_id, NULL::text AS message_id FROM posthaste.journal WHERE attempts > max_attempts"
            }
            Self::DoneTwice => {
                "SELECT j.tx_id, NULL::text AS message_id FROM posthaste.journal j
                 WHERE j.state = 'DONE' AND j.tx_id <> j.root_id
                   AND NOT EXISTS (SELECT FROM posthaste.lineage k WHERE k.root_id = j.root_id AND k.tx_id = j.tx_id)
                 UNION
                 SELECT max(p.tx_id::text)::uuid, min(p.message_id::text) FROM posthaste.payload p
                 JOIN posthaste.journal j ON j.tx_id = p.tx_id AND j.state = 'DONE'
                 WHERE p.messagekey IS NOT NULL GROUP BY p.messagekey HAVING count(*) > 1"
            }
            Self::AcceptedTwice => {
                "SELECT NULL::uuid AS tx_id, dedup_key::text AS message_id FROM :ibisstore
                 WHERE dedup_key IS NOT NULL GROUP BY slotid, dedup_key HAVING count(*) > 1"
            }
            Self::DedupIndex => {
                "SELECT NULL::uuid AS tx_id, NULL::text AS message_id
                 WHERE NOT EXISTS (
                     SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid AND x.relname = 'ibisstore_dedup'
                     WHERE i.indrelid = $name$:ibisstore$name$::regclass AND i.indisunique AND i.indisvalid AND i.indisready
                       AND i.indpred IS NULL AND to_jsonb(i) ->> 'indnullsnotdistinct' IS DISTINCT FROM 'true'
                       AND ARRAY['dedup_key default', 'slotid text_pattern_ops'] = (
                           SELECT array_agg(a.attname || CASE WHEN c.opcdefault THEN ' default' ELSE ' ' || c.opcname END
                                            ORDER BY k.n)
                           FROM unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[])
                                WITH ORDINALITY k(attnum, opclass, indcollation, n)
                           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                                AND a.attcollation = k.indcollation
                           JOIN pg_opclass c ON c.oid = k.opclass))"
            }
            Self::StrangeRow => {
                "SELECT tx_id, messageid::text AS message_id FROM :ibisstore WHERE type NOT IN ('A', 'E', 'M', 'I', 'H', 'L')
                 UNION ALL
                 SELECT tx_id, NULL FROM posthaste.journal
                 WHERE state NOT IN ('READY', 'PUBLISHED', 'DONE', 'ERROR') OR mode NOT IN ('OWN', 'HANDOVER', 'DIRECT')
                    OR attempts < 0 OR max_attempts <= 0"
            }
            Self::UnwatchedRow => {
                "SELECT j.tx_id, NULL::text AS message_id FROM posthaste.journal j
                 WHERE j.state IN ('READY', 'PUBLISHED')
                   AND NOT EXISTS (SELECT FROM posthaste.due d WHERE d.tx_id = j.tx_id)
                   AND NOT EXISTS (SELECT FROM (SELECT unnest(tx_id || others) AS tx_id FROM posthaste.unsettled) named
                                   WHERE named.tx_id = j.tx_id)"
            }
        }
    }
}

/// ERROR rows that nothing answers for, but perhaps a deletion; and roots with more of them than deletions on record.
const UNANSWERED: &str = "unanswered AS (
    SELECT j.tx_id, j.root_id FROM posthaste.journal j
    LEFT JOIN (SELECT DISTINCT tx_id FROM :ibisstore WHERE type = 'E') e ON e.tx_id = j.tx_id
    LEFT JOIN (SELECT DISTINCT parent_id FROM posthaste.lineage WHERE cause = 'RESEND') k ON k.parent_id = j.tx_id
    WHERE j.state = 'ERROR' AND e.tx_id IS NULL AND k.parent_id IS NULL),
deletions AS (
    SELECT root_id, count(*) AS times FROM posthaste.audit
    WHERE what = 'delete' AND root_id IS NOT NULL AND detail ->> 'type' = 'E' GROUP BY root_id),
gone AS (
    SELECT u.root_id FROM (SELECT root_id, count(*) AS times FROM unanswered GROUP BY root_id) u
    LEFT JOIN deletions d USING (root_id) WHERE u.times > coalesce(d.times, 0))";

/// Settled rows are cleaned by age: what is younger than this must still be there. By id a minute is granted, for
/// clocks of several machines.
const BOUND: &str = "bound AS MATERIALIZED (
    SELECT clock_timestamp() - $1::float8 * interval '1 second' AS young,
           (lpad(to_hex(((extract(epoch FROM clock_timestamp()) - $1::float8 + 60) * 1000)::bigint), 12, '0')
            || '70008000000000000000')::uuid AS young_id)";

/// When a root was accepted: its log row says it, or its id, if that is of version 7. NULL: nothing tells.
fn accepted_at(log_date: &str, root: &str) -> String {
    format!(
        "coalesce({log_date}, CASE WHEN substr({root}::text, 15, 1) = '7' THEN to_timestamp(
             ('x' || left(replace({root}::text, '-', ''), 12))::bit(48)::bigint / 1000.0::float8) END)"
    )
}

/// What has no moment is never left out: it may belong there.
fn within(moment: &str, since: &str, until: &str) -> String {
    format!(
        "({moment} IS NULL OR ({since}::timestamptz IS NULL OR {moment} >= {since})
          AND ({until}::timestamptz IS NULL OR {moment} < {until}))"
    )
}

/// $1: T_keep in seconds; $2: offenders named; of a range $3 and $4: accepted since, and before.
pub(super) fn listing(rule: Rule, of_range: bool) -> String {
    let mut offenders = rule.offenders().to_owned();
    if of_range {
        let at = accepted_at("l.messagedate", "coalesce(j.root_id, told.tx_id)");
        offenders = format!(
            "SELECT tx_id, message_id FROM (
                 SELECT told.tx_id, told.message_id, {at} AS at FROM ({offenders}) told
                 LEFT JOIN posthaste.journal j ON j.tx_id = told.tx_id
                 LEFT JOIN :ibisstore l ON l.messagekey = j.log_key) dated WHERE {}",
            within("at", "$3", "$4")
        );
    }
    format!(
        "/* prove_{name} */ WITH {BOUND}, {UNANSWERED}, bad AS MATERIALIZED ({offenders})
         SELECT (SELECT count(*) FROM bad) AS total, b.tx_id,
                coalesce(b.message_id, l.messageid, p.message_id)::text AS message_id
         FROM (SELECT * FROM bad ORDER BY tx_id, message_id LIMIT $2) b
         LEFT JOIN posthaste.journal j ON j.tx_id = b.tx_id
         LEFT JOIN :ibisstore l ON l.messagekey = j.log_key
         LEFT JOIN posthaste.payload p ON p.tx_id = b.tx_id
         ORDER BY b.tx_id, 3",
        name = rule.as_str(),
    )
}

/// Each root once: the acceptance's journal row, its log row, what descends from it, what lies in a store.
/// $1: T_keep in seconds; of a range $2 and $3: accepted since, and before.
pub(super) fn balance(of_range: bool) -> String {
    let wanted = if of_range { format!("WHERE {}", within("at", "$2", "$3")) } else { String::new() };
    let at = accepted_at("log.messagedate", "root_id");
    format!(
        "/* prove_balance */ WITH {BOUND}, {UNANSWERED},
         kin AS (
             SELECT root_id, bool_or(state IN ('READY', 'PUBLISHED') AND attempts = 0) AS waiting,
                    bool_or(state IN ('READY', 'PUBLISHED') AND attempts > 0) AS retrying,
                    bool_or(state = 'ERROR') AS failed
             FROM posthaste.journal WHERE tx_id <> root_id GROUP BY root_id),
         held AS (
             SELECT root_id, bool_or(type = 'E') AS in_error, min(slotid) AS slotid FROM :ibisstore
             WHERE type IN ('E', 'H', 'I', 'M') GROUP BY root_id),
         root AS (
             SELECT coalesce(log.slotid, CASE WHEN first.state IS NULL THEN held.slotid END)::text AS slot,
                    CASE WHEN log.slotid IS NULL THEN first.destination END AS destination, {STANDING} AS standing, {at} AS at
             FROM (SELECT tx_id AS root_id, state, attempts, mode, destination FROM posthaste.journal
                   WHERE tx_id = root_id) first
             FULL JOIN (SELECT root_id, slotid, messagedate FROM :ibisstore WHERE type = 'A') log USING (root_id)
             FULL JOIN kin USING (root_id)
             FULL JOIN held USING (root_id)
             LEFT JOIN (SELECT root_id, true AS lost FROM gone) gone USING (root_id)
             LEFT JOIN deletions USING (root_id)
             LEFT JOIN (SELECT DISTINCT root_id, true AS again FROM posthaste.lineage WHERE cause = 'RESEND') resent
                 USING (root_id))
         SELECT slot, destination, standing, count(*) AS messages FROM root {wanted} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
}

/// The first that holds: what is lost before what a person must see, that before what is on its way, that before what
/// is settled.
const STANDING: &str = "CASE
    WHEN gone.lost THEN 'unaccounted'
    WHEN held.in_error THEN 'in-error'
    WHEN kin.retrying OR first.state IN ('READY', 'PUBLISHED') AND first.attempts > 0 THEN 'retrying'
    WHEN kin.waiting OR first.state IN ('READY', 'PUBLISHED') THEN 'waiting'
    WHEN first.state IS NULL AND log.slotid IS NULL AND kin.failed IS NULL THEN 'parked'
    WHEN first.state = 'DONE' AND kin.failed IS NOT TRUE AND first.mode = 'HANDOVER' THEN 'handed-over'
    WHEN first.state = 'DONE' AND kin.failed IS NOT TRUE THEN 'processed'
    WHEN deletions.times > 0 THEN 'deleted'
    WHEN resent.again AND (first.state IS NOT NULL OR kin.failed IS NOT NULL) THEN 'resent'
    WHEN first.state = 'DONE' OR kin.failed IS NOT NULL THEN 'processed'
    WHEN held.slotid IS NOT NULL THEN 'parked'
    WHEN first.state IS NULL AND log.messagedate <= (SELECT young FROM bound) THEN 'cleaned'
    ELSE 'unaccounted' END";
