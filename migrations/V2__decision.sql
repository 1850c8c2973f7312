-- Transactions over several databases: what was decided about those that are prepared elsewhere.

CREATE TABLE posthaste.decision (
    -- One attempt's transaction; its prepared branches carry it in their gid.
    gtrid       uuid PRIMARY KEY,
    incarnation uuid NOT NULL,
    outcome     text NOT NULL CHECK (outcome IN ('COMMIT', 'ABORT')),
    tx_id       uuid NOT NULL,
    -- [{"gid": …, "place": "<system identifier>/<database>", "xid": …, "timeline": …}]; empty for ABORT.
    branches    jsonb NOT NULL DEFAULT '[]',
    decided_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
