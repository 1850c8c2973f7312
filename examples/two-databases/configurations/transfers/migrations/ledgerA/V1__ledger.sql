CREATE TABLE account (
    name    text PRIMARY KEY,
    balance bigint NOT NULL CHECK (balance >= 0)
);
-- One row for each transfer: a second booking of it is refused, and so is one for an account that is not here.
CREATE TABLE booking (
    transfer text PRIMARY KEY,
    account  text NOT NULL REFERENCES account,
    amount   bigint NOT NULL
);
INSERT INTO account (name, balance) VALUES ('alice', 1000000), ('anna', 1000000);
