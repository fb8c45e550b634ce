-- Counted up by every transaction that writes, so that a writer can tell with one look whether it was the last one.
ALTER TABLE log_head ADD COLUMN version bigint NOT NULL DEFAULT 0;
