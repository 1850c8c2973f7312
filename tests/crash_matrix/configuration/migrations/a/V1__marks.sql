-- No unique key: a second effect must show.
CREATE TABLE three (id text NOT NULL, body text NOT NULL);
