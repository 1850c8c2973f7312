-- How the tables are kept small under steady load: what is dead is vacuumed while it is a small share of the table.
-- A table of TOAST takes the thresholds from its own table, vacuum_truncate not.

-- Block ranges do not know what has left them. Once the space of expired rows is used again, each range says that it holds
-- expired ones, and to find none of them the whole table is read. The log is cleaned along ibisstore_browse instead,
-- which costs accepting nothing.
DROP INDEX ibisstore_expiry;
-- The same in a table that is written seldom enough to bear a tree.
DROP INDEX posthaste.inbox_seen;
CREATE INDEX inbox_seen ON posthaste.inbox (seen_at);

-- The default scale factor, a fifth of the table, is more than a day's rows of a week: so much would lie dead in front of
-- clean-up and of the sweeper. vacuum_truncate: giving back the end of a table takes a lock that stops everybody, for
-- space that is needed again in a minute.
ALTER TABLE ibisstore SET (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    vacuum_truncate = off,
    toast.vacuum_truncate = off
);

-- fillfactor is 50 since V1: with that every row of a page can be updated once in place before anything is pruned. 60
-- made 79 %, 70 made 52 % of the updates heap-only, and the table no smaller.
ALTER TABLE posthaste.journal SET (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    vacuum_truncate = off
);

-- Comes and goes with journal rows, or with the log.
ALTER TABLE posthaste.payload SET (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    vacuum_truncate = off,
    toast.vacuum_truncate = off
);
ALTER TABLE posthaste.lineage SET (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    vacuum_truncate = off
);
ALTER TABLE posthaste.inbox SET (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    vacuum_truncate = off
);

-- A started attempt is updated once, and grows by its error: with 16 at work, a quarter of the updates found no room in a
-- full page, and wrote the index, too.
ALTER TABLE posthaste.attempt SET (
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    vacuum_truncate = off,
    toast.vacuum_truncate = off
);

-- Few rows that soon go again, read from the front every second: a share of so few would be next to nothing or, after an
-- outage, too much. Vacuuming them takes milliseconds and need not pause.
ALTER TABLE posthaste.due SET (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off
);
ALTER TABLE posthaste.decision SET (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off
);
