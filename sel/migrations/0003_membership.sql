-- This node's own signatures about membership versions: one per predecessor, round and phase, for ever.
CREATE TABLE membership_signatures (
    previous bytea NOT NULL,
    round bigint NOT NULL,
    phase text NOT NULL,
    membership_hash bytea NOT NULL,
    signature bytea NOT NULL,
    event_id bytea NOT NULL,
    PRIMARY KEY (previous, round, phase)
);
CREATE TRIGGER membership_signatures_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON membership_signatures
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What this node's operator approved, in the order of approval: nothing that others need to know.
CREATE TABLE membership_approvals (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    membership_hash bytea NOT NULL UNIQUE,
    approved_at timestamptz NOT NULL DEFAULT now()
);
