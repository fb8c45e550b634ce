-- The log: events for ever, everything else can be rebuilt from events and certificates.

CREATE TABLE events (
    seq bigint PRIMARY KEY,
    event_id bytea NOT NULL UNIQUE,
    author bytea NOT NULL,
    author_seq bigint NOT NULL,
    stream bytea NOT NULL,
    epoch bigint NOT NULL,
    hlc bigint NOT NULL,
    kind text NOT NULL,
    body bytea NOT NULL,
    signature bytea NOT NULL,
    UNIQUE (author, author_seq)
);
CREATE INDEX events_stream ON events (stream);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the log is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE certificates (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    certificate_id bytea NOT NULL UNIQUE,
    kind text NOT NULL,
    stream bytea,
    body bytea NOT NULL
);
CREATE INDEX certificates_stream ON certificates (stream);
CREATE TRIGGER certificates_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON certificates
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One row per author: the head of its chain here, and from which seq on its events are void.
CREATE TABLE chains (
    author bytea PRIMARY KEY,
    seq bigint NOT NULL,
    event_id bytea,
    hlc bigint NOT NULL,
    day bigint NOT NULL,
    day_events bigint NOT NULL,
    day_bytes bigint NOT NULL,
    void_from bigint
) WITH (fillfactor = 70);

-- One row per stream: its fold. state is null outside the state root.
CREATE TABLE streams (
    stream bytea PRIMARY KEY,
    state bytea,
    digest bytea,
    last_epoch bigint,
    last_hlc bigint,
    last_id bytea,
    awaits bytea,
    unproven boolean NOT NULL,
    label text,
    status text,
    epoch bigint,
    task_type text,
    creator bytea,
    membership bytea,
    created_at bigint,
    expiry_ms bigint
) WITH (fillfactor = 70);
CREATE INDEX streams_label ON streams (label) WHERE label IS NOT NULL;
CREATE INDEX streams_created ON streams (created_at) WHERE created_at IS NOT NULL;
CREATE INDEX streams_awaits ON streams (awaits) WHERE awaits IS NOT NULL;

-- Verdicts other than plain acceptance. An event without a row here is accepted.
CREATE TABLE verdicts (
    event_id bytea PRIMARY KEY,
    stream bytea NOT NULL,
    status text NOT NULL,
    reason text NOT NULL,
    message text NOT NULL
);
CREATE INDEX verdicts_stream ON verdicts (stream);

CREATE TABLE parked (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id bytea NOT NULL UNIQUE,
    author bytea NOT NULL,
    author_seq bigint NOT NULL,
    why text NOT NULL,
    due_ms bigint NOT NULL,
    body bytea NOT NULL,
    signature bytea NOT NULL
);
CREATE INDEX parked_author ON parked (author, author_seq);

CREATE TABLE parked_certificates (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE,
    body bytea NOT NULL
);

-- This node's own finality votes: one per task and epoch, for ever.
CREATE TABLE finality_votes (
    task bytea NOT NULL,
    epoch bigint NOT NULL,
    candidate_hash bytea NOT NULL,
    event_id bytea NOT NULL,
    PRIMARY KEY (task, epoch)
);
CREATE TRIGGER finality_votes_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON finality_votes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The one row that every writer locks.
CREATE TABLE log_head (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    network_id bytea,
    node_id bytea,
    seq bigint NOT NULL DEFAULT 0,
    events bigint NOT NULL DEFAULT 0,
    events_sum bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    certificates bigint NOT NULL DEFAULT 0,
    certificates_sum bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    state_root bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    max_hlc bigint NOT NULL DEFAULT 0,
    parked bigint NOT NULL DEFAULT 0,
    memberships bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO log_head DEFAULT VALUES;
