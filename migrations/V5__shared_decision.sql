-- Messages that share a transaction over several databases share its decision, which names them all (protocol §7).
ALTER TABLE posthaste.decision
    -- The journal rows beside tx_id; empty for ABORT, and where nobody shared.
    ADD COLUMN others uuid[] NOT NULL DEFAULT '{}';
