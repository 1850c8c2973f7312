-- Messages that share a transaction over several databases share its decision, which names them all (protocol §7): beside
-- tx_id these journal rows. Empty for ABORT, and where nobody shared.
ALTER TABLE posthaste.decision ADD COLUMN others uuid[] NOT NULL DEFAULT '{}';
