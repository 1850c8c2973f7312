-- No unique key: a second effect must show.
CREATE TABLE three (id text NOT NULL, body text NOT NULL);
CREATE TABLE one (id text NOT NULL, body text NOT NULL);

-- A sequence is not rolled back: it counts every try. Its nextval would be 32 ahead after a crash of the server.
CREATE SEQUENCE refusals;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_lock(hashtext('refusals'));
    PERFORM setval('refusals', (SELECT last_value + is_called::int FROM refusals));
    PERFORM pg_advisory_unlock(hashtext('refusals'));
    RAISE EXCEPTION 'refused';
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON one FOR EACH ROW WHEN (NEW.body = 'refused') EXECUTE FUNCTION refuse();
