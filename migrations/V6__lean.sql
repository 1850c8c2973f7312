-- What each message costs PostgreSQL, counted in instructions of its own: accepting in groups of 14 took 171,000 a message,
-- 105,000 with this and statements that fit it; taking 67,000, and 31,000 with take_all.

-- The key first: so the index that recognises repeats finds a message by its id, too, in whatever slot. Without a
-- predicate, which would be made ready for each statement: NULLs are equal to nothing anyway. text_pattern_ops knows `=` and
-- not `<`, so that pages of a slot, which compare with `<`, are never read along this index instead of their own.
DROP INDEX ibisstore_dedup;
CREATE UNIQUE INDEX ibisstore_dedup ON ibisstore (dedup_key, slotid text_pattern_ops);
-- Most messages are recognised by their message id; the others have their own, smaller index.
DROP INDEX ibisstore_messageid;
CREATE INDEX ibisstore_messageid ON ibisstore (messageid) WHERE dedup_key IS DISTINCT FROM messageid;

-- PostgreSQL reads and plans each check again for each statement: 12,000 instructions a message. The words are those of
-- enumerations in the program, which alone writes here; `posthaste prove` looks whether others stand there.
ALTER TABLE ibisstore DROP CONSTRAINT ibisstore_type_check;
ALTER TABLE posthaste.journal
    DROP CONSTRAINT journal_mode_check,
    DROP CONSTRAINT journal_state_check,
    DROP CONSTRAINT journal_attempts_check,
    DROP CONSTRAINT journal_max_attempts_check;

-- As in V4, but the update itself takes the rows in the order of their ids: a scan of the primary key, the only plan that is
-- left, sorts what it looks for. A lock before the update would be a second write to each row.
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
    SET state = 'DONE', attempts = j.attempts + 1, finished_at = clock_timestamp(), owner = NULL, running_by = NULL
    WHERE j.tx_id = ANY (tx_ids) AND j.destination = wanted_destination AND j.attempts = seen
      AND j.sha256 = hashes[array_position(tx_ids, j.tx_id)] AND j.state IN ('READY', 'PUBLISHED') AND j.attempts < j.max_attempts
      AND (j.not_before IS NULL OR j.not_before <= clock_timestamp())
    RETURNING j.tx_id, j.max_attempts;
END $$;

-- The same for rows that nobody has tried, all of them or none: what is sent behind it, without waiting for its answer,
-- belongs to all of them. `untouched`: the session's settings are its own. `bound`: of each statement from now on, in ms.
CREATE FUNCTION posthaste.take_all(tx_ids uuid[], hashes bytea[], wanted_destination text, untouched boolean, bound integer)
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
    PERFORM set_config('statement_timeout', bound::text, true);
    UPDATE posthaste.journal j
    SET state = 'DONE', attempts = j.attempts + 1, finished_at = clock_timestamp(), owner = NULL, running_by = NULL
    WHERE j.tx_id = ANY (tx_ids) AND j.destination = wanted_destination AND j.attempts = 0
      AND j.sha256 = hashes[array_position(tx_ids, j.tx_id)] AND j.state IN ('READY', 'PUBLISHED') AND j.attempts < j.max_attempts
      AND (j.not_before IS NULL OR j.not_before <= clock_timestamp());
    GET DIAGNOSTICS taken = ROW_COUNT;
    IF taken <> cardinality(tx_ids) THEN
        RAISE EXCEPTION '% of % rows could be taken', taken, cardinality(tx_ids) USING ERRCODE = 'PH001';
    END IF;
END $$;
