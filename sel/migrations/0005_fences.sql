-- One row per recovery of this node's chain (docs/protocol.md §7): what it may have signed before is not known here, so
-- it casts no finality vote on tasks created until then, and signs no successor of membership versions up to that
-- number (-1: no such bound).
CREATE TABLE fences (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    until_ms bigint NOT NULL,
    membership bigint NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER fences_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fences
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
