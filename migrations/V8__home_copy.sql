-- What tells this home from a copy of it. System identifier and timeline are those of a whole cluster: a copy may stand in the
-- same one, and even under the same name.
ALTER TABLE posthaste.home ADD COLUMN database_oid oid;
ALTER TABLE posthaste.home ADD COLUMN database_name text;
ALTER TABLE posthaste.home ADD COLUMN table_oid oid;
-- Raised about once a minute, and then shown at each broker by a name: a snapshot of the disks goes back here, not there.
ALTER TABLE posthaste.home ADD COLUMN epoch bigint NOT NULL DEFAULT 1;
-- Who raised it last: two copies that raise it to the same number are told apart by this.
ALTER TABLE posthaste.home ADD COLUMN epoch_token uuid NOT NULL DEFAULT gen_random_uuid();

UPDATE posthaste.home
SET database_oid = (SELECT oid FROM pg_database WHERE datname = current_database()),
    database_name = current_database(), table_oid = tableoid;
ALTER TABLE posthaste.home
    ALTER COLUMN database_oid SET NOT NULL,
    ALTER COLUMN database_name SET NOT NULL,
    ALTER COLUMN table_oid SET NOT NULL;

-- One row that nothing changes but an operator's word: while it is the row that was inserted then, its xmin is what it says.
-- Restored from a dump it was inserted by another transaction; vacuuming keeps xmin, also FREEZE and FULL.
CREATE TABLE posthaste.home_witness (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    inserted_by xid NOT NULL
);
INSERT INTO posthaste.home_witness (inserted_by) VALUES (pg_current_xact_id()::xid);
