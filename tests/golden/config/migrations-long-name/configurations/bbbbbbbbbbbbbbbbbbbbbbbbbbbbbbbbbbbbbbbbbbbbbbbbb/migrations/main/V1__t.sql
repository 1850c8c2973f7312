CREATE TABLE t (message text);
