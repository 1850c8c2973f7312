CREATE TABLE history (
    transfer text PRIMARY KEY,
    payer    text NOT NULL,
    payee    text NOT NULL,
    amount   bigint NOT NULL CHECK (amount > 0),
    moved_at timestamptz NOT NULL DEFAULT now()
);
