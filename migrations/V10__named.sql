-- As in V6, but every function, operator and type is named with its schema: both are called in transactions in which steps
-- run, whose search path is the application's, and others may create in a schema of it what fits better. No SET search_path:
-- it would cost each call more than the names do.

CREATE OR REPLACE FUNCTION posthaste.take(tx_ids uuid[], hashes bytea[], wanted_destination text, seen integer)
RETURNS TABLE (tx_id uuid, max_attempts integer)
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    UPDATE posthaste.journal j
    SET state = 'DONE', attempts = j.attempts OPERATOR(pg_catalog.+) 1, finished_at = pg_catalog.clock_timestamp(),
        owner = NULL, running_by = NULL
    WHERE j.tx_id OPERATOR(pg_catalog.=) ANY (tx_ids) AND j.destination OPERATOR(pg_catalog.=) wanted_destination
      AND j.attempts OPERATOR(pg_catalog.=) seen
      AND j.sha256 OPERATOR(pg_catalog.=) hashes[pg_catalog.array_position(tx_ids, j.tx_id)]
      AND j.state OPERATOR(pg_catalog.=) ANY ('{READY,PUBLISHED}') AND j.attempts OPERATOR(pg_catalog.<) j.max_attempts
      AND (j.not_before IS NULL OR j.not_before OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp())
    RETURNING j.tx_id, j.max_attempts;
END $$;

CREATE OR REPLACE FUNCTION posthaste.take_all(tx_ids uuid[], hashes bytea[], wanted_destination text, untouched boolean, bound integer)
RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    taken bigint;
BEGIN
    IF untouched IS NOT TRUE THEN
        RAISE EXCEPTION 'the session has other settings than before' USING ERRCODE = 'PH002';
    END IF;
    PERFORM pg_catalog.set_config('statement_timeout', bound::pg_catalog.text, true);
    UPDATE posthaste.journal j
    SET state = 'DONE', attempts = j.attempts OPERATOR(pg_catalog.+) 1, finished_at = pg_catalog.clock_timestamp(),
        owner = NULL, running_by = NULL
    WHERE j.tx_id OPERATOR(pg_catalog.=) ANY (tx_ids) AND j.destination OPERATOR(pg_catalog.=) wanted_destination
      AND j.attempts OPERATOR(pg_catalog.=) 0
      AND j.sha256 OPERATOR(pg_catalog.=) hashes[pg_catalog.array_position(tx_ids, j.tx_id)]
      AND j.state OPERATOR(pg_catalog.=) ANY ('{READY,PUBLISHED}') AND j.attempts OPERATOR(pg_catalog.<) j.max_attempts
      AND (j.not_before IS NULL OR j.not_before OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp());
    GET DIAGNOSTICS taken = ROW_COUNT;
    IF taken OPERATOR(pg_catalog.<>) pg_catalog.cardinality(tx_ids) THEN
        RAISE EXCEPTION '% of % rows could be taken', taken, pg_catalog.cardinality(tx_ids) USING ERRCODE = 'PH001';
    END IF;
END $$;
