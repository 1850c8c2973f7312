-- Where whoever looks for open journal rows finds them (protocol §2, I9): the statement that inserts rows inserts one entry
-- here that names them all, so that the two are there or not there together. Neither a clock nor the order of ids decides
-- whether a row is found. An entry goes when each of its rows is settled or stands in `due`.
CREATE TABLE posthaste.unsettled (
    tx_id  uuid PRIMARY KEY,
    others uuid[]
) WITH (
    -- As `due`: few rows that soon go again, read from the front.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off
);

-- What is under way: whoever inserts meanwhile commits first, and is seen.
LOCK TABLE posthaste.journal IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO posthaste.unsettled (tx_id) SELECT tx_id FROM posthaste.journal WHERE state IN ('READY', 'PUBLISHED');

ALTER TABLE posthaste.home DROP COLUMN open_from;
