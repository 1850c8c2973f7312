-- An instance says that it was told to stop before it ends: what it had begun is given another attempt, however it ends then.
ALTER TABLE posthaste.instance ADD COLUMN stopping_at timestamptz;

ALTER TABLE posthaste.attempt DROP CONSTRAINT attempt_outcome_check;
ALTER TABLE posthaste.attempt ADD CONSTRAINT attempt_outcome_check
    CHECK (outcome IN ('RUNNING', 'FAILED', 'SUCCEEDED', 'CRASHED', 'STOPPED'));
