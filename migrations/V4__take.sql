-- The compare-and-set that begins a first attempt, for one message or many (protocol §5, §7).
--
-- A function for the sake of its settings: its plan is made once for each session. It is written so that there is no other
-- plan than to look each row up by its key, however small the journal was when it was made; one made for each call costs
-- more than the rest of the transaction.
CREATE FUNCTION posthaste.take(tx_ids uuid[], hashes bytea[], wanted_destination text, seen integer)
RETURNS TABLE (tx_id uuid, max_attempts integer)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    -- Locked in the order of the ids, so that two groups never wait for each other.
    RETURN QUERY
    WITH held AS MATERIALIZED (
        SELECT one.tx_id
        FROM (SELECT u.tx_id, u.sha256 FROM unnest(tx_ids, hashes) u(tx_id, sha256) ORDER BY u.tx_id) wanted
        CROSS JOIN LATERAL (
            SELECT j.tx_id FROM posthaste.journal j
            WHERE j.tx_id = wanted.tx_id AND j.destination = wanted_destination AND j.attempts = seen
              AND j.sha256 = wanted.sha256 AND j.state IN ('READY', 'PUBLISHED') AND j.attempts < j.max_attempts
              AND (j.not_before IS NULL OR j.not_before <= clock_timestamp())
            FOR NO KEY UPDATE) one)
    UPDATE posthaste.journal j
    SET state = 'DONE', attempts = j.attempts + 1, finished_at = clock_timestamp(), owner = NULL, running_by = NULL
    WHERE j.tx_id = ANY (ARRAY(SELECT held.tx_id FROM held))
    RETURNING j.tx_id, j.max_attempts;
END $$;
