-- name: lock_head
-- The writer lock: totals of the log, held until the transaction ends; and one author's chain, if it has one.
-- A statement that waited for the lock has the locked row as it is now, but all else as it was when it began (PostgreSQL
-- manual, "Read Committed Isolation Level"): ``fresh`` says whether the chain is of the same moment as the totals.
SELECT h.seq, h.events, h.events_sum, h.certificates, h.certificates_sum, h.state_root, h.max_hlc, h.parked,
    h.memberships, h.version, h.version = (SELECT version FROM log_head) AS fresh,
    h.folded_by, c.author, c.seq, c.event_id, c.hlc, c.day, c.day_events, c.day_bytes, c.void_from
FROM log_head h LEFT JOIN chains c ON c.author = $1 FOR UPDATE OF h;

-- name: read_head
SELECT seq, events, events_sum, certificates, certificates_sum, state_root, max_hlc, parked, memberships
FROM log_head;

-- name: owner
SELECT network_id, node_id FROM log_head;

-- name: claim_owner
-- A fresh log becomes one network's and one node's.
UPDATE log_head SET network_id = $1, node_id = $2 WHERE network_id IS NULL;

-- name: folded_by
SELECT folded_by FROM log_head;

-- name: note_folded_by
UPDATE log_head SET folded_by = $1;

-- name: release_owner
-- A log that holds nothing may become another network's.
UPDATE log_head SET network_id = NULL, node_id = NULL
WHERE seq = 0 AND parked = 0 AND NOT EXISTS (SELECT FROM certificates) AND NOT EXISTS (SELECT FROM parked_certificates);

-- name: chains
SELECT author, seq, event_id, hlc, day, day_events, day_bytes, void_from FROM chains WHERE author = ANY($1::bytea[]);

-- name: ids_at
SELECT e.author, e.author_seq, e.event_id
FROM unnest($1::bytea[], $2::bigint[]) AS place (author, author_seq)
JOIN events e ON e.author = place.author AND e.author_seq = place.author_seq;

-- name: events_by_id
SELECT event_id, body, signature FROM events WHERE event_id = ANY($1::bytea[]);

-- name: ids_between
SELECT event_id, stream FROM events
WHERE author = $1 AND author_seq >= $2 AND ($3::bigint IS NULL OR author_seq < $3) ORDER BY author_seq;

-- name: streams
SELECT stream, state, digest, last_epoch, last_hlc, last_id, awaits, unproven
FROM streams WHERE stream = ANY($1::bytea[]);

-- name: record
-- All that is stored of one stream, of one moment: its fold, live events, certificates, verdicts.
WITH live AS MATERIALIZED (
    SELECT e.epoch, e.hlc, e.event_id, e.body, e.signature
    FROM events e LEFT JOIN chains c ON c.author = e.author
    WHERE e.stream = $1 AND (c.void_from IS NULL OR e.author_seq < c.void_from)
), judged AS MATERIALIZED (
    SELECT event_id, status, reason, message FROM verdicts WHERE stream = $1
)
SELECT stream, state, digest, last_epoch, last_hlc, last_id, awaits, unproven,
    ARRAY(SELECT event_id FROM live ORDER BY epoch, hlc, event_id),
    ARRAY(SELECT body FROM live ORDER BY epoch, hlc, event_id),
    ARRAY(SELECT signature FROM live ORDER BY epoch, hlc, event_id),
    ARRAY(SELECT body FROM certificates WHERE stream = $1 ORDER BY seq),
    ARRAY(SELECT event_id FROM judged ORDER BY event_id), ARRAY(SELECT status FROM judged ORDER BY event_id),
    ARRAY(SELECT reason FROM judged ORDER BY event_id), ARRAY(SELECT message FROM judged ORDER BY event_id)
FROM streams WHERE stream = $1;

-- name: stream_events
SELECT e.stream, e.event_id, e.body, e.signature
FROM events e LEFT JOIN chains c ON c.author = e.author
WHERE e.stream = ANY($1::bytea[]) AND (c.void_from IS NULL OR e.author_seq < c.void_from)
ORDER BY e.epoch, e.hlc, e.event_id;

-- name: void_events
SELECT e.stream, e.event_id, e.body, e.signature
FROM events e JOIN chains c ON c.author = e.author
WHERE e.stream = ANY($1::bytea[]) AND e.author_seq >= c.void_from;

-- name: stream_certificates
SELECT stream, body FROM certificates WHERE stream = ANY($1::bytea[]) ORDER BY seq;

-- name: has_certificates
SELECT certificate_id FROM certificates WHERE certificate_id = ANY($1::bytea[]);

-- name: membership_certificates
SELECT body FROM certificates WHERE kind = 'membership' ORDER BY seq;

-- name: parked_certificates
SELECT body FROM parked_certificates ORDER BY seq;

-- name: park_certificates
INSERT INTO parked_certificates (digest, body) SELECT * FROM unnest($1::bytea[], $2::bytea[]) ON CONFLICT DO NOTHING;

-- name: unpark_certificates
DELETE FROM parked_certificates WHERE digest = ANY($1::bytea[]);

-- name: trim_parked_certificates
-- Oldest first: the newest $1 stay, as far as they have no more than $2 bytes.
DELETE FROM parked_certificates WHERE seq IN (
    SELECT seq FROM (SELECT seq, row_number() OVER newest AS place, sum(octet_length(body)) OVER newest AS bytes
                     FROM parked_certificates WINDOW newest AS (ORDER BY seq DESC)) ranked
    WHERE place > $1 OR bytes > $2);

-- name: streams_pinning
SELECT stream FROM streams WHERE awaits = $1;

-- name: parked_of
SELECT why, due_ms, event_id, body, signature FROM parked WHERE author = ANY($1::bytea[]) ORDER BY author, author_seq;

-- name: due_authors
SELECT DISTINCT author FROM parked WHERE why = 'early' AND due_ms <= $1;

-- name: park
INSERT INTO parked (event_id, author, author_seq, why, due_ms, body, signature)
SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::text[], $5::bigint[], $6::bytea[], $7::bytea[])
ON CONFLICT (event_id) DO UPDATE SET why = excluded.why, due_ms = excluded.due_ms;

-- name: unpark
DELETE FROM parked WHERE event_id = ANY($1::bytea[]);

-- name: trim_parked_authors
-- Oldest first: what is dropped can be fetched again.
DELETE FROM parked WHERE seq IN (
    SELECT seq FROM (SELECT seq, row_number() OVER (PARTITION BY author ORDER BY seq DESC) AS place
                     FROM parked WHERE author = ANY($1::bytea[])) ranked WHERE place > $2);

-- name: trim_parked
DELETE FROM parked WHERE seq IN (SELECT seq FROM parked WHERE why = $1 ORDER BY seq DESC OFFSET $2);

-- name: count_parked
SELECT count(*) FROM parked;

-- name: labelled
SELECT stream FROM streams WHERE label = $1;

-- name: vote_on
SELECT candidate_hash FROM finality_votes WHERE task = $1 AND epoch = $2;

-- name: membership_signatures
SELECT phase, round, membership_hash, signature FROM membership_signatures WHERE previous = $1 ORDER BY round, phase;

-- name: keep_membership_signature
INSERT INTO membership_signatures (previous, round, phase, membership_hash, signature, event_id)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: fence
-- The newest recovery knows best what was signed about members; a clock may have gone back since the latest time.
SELECT coalesce(max(until_ms), -1), coalesce((SELECT membership FROM fences ORDER BY number DESC LIMIT 1), -1)
FROM fences;

-- name: raise_fence
INSERT INTO fences (until_ms, membership) VALUES ($1, $2);

-- name: verdicts
SELECT event_id, status, reason, message FROM verdicts WHERE stream = $1;

-- name: forget_verdicts
DELETE FROM verdicts WHERE stream = ANY($1::bytea[]);

-- name: scan
SELECT seq, body, signature FROM events WHERE seq >= $1 ORDER BY seq LIMIT $2;

-- name: append
-- Events on top of the log as it was at version $10: no row comes back if that is not how it is any more, or if one of
-- the labels $11 is taken, and then nothing was written.
WITH new_head AS (
    UPDATE log_head SET seq = $1, events = $2, events_sum = $3, certificates = $4, certificates_sum = $5,
        state_root = $6, max_hlc = $7, parked = $8, memberships = $9, version = version + 1
    WHERE version = $10 AND NOT EXISTS (SELECT FROM streams WHERE label = ANY($11::text[]))
    RETURNING version
), new_events AS (
    INSERT INTO events (seq, event_id, author, author_seq, stream, epoch, hlc, kind, body, signature)
    SELECT e.* FROM new_head, unnest($12::bigint[], $13::bytea[], $14::bytea[], $15::bigint[], $16::bytea[],
        $17::bigint[], $18::bigint[], $19::text[], $20::bytea[], $21::bytea[]) e
), new_chains AS (
    INSERT INTO chains (author, seq, event_id, hlc, day, day_events, day_bytes, void_from)
    SELECT c.* FROM new_head, unnest($22::bytea[], $23::bigint[], $24::bytea[], $25::bigint[], $26::bigint[],
        $27::bigint[], $28::bigint[], $29::bigint[]) c
    ON CONFLICT (author) DO UPDATE SET seq = excluded.seq, event_id = excluded.event_id, hlc = excluded.hlc,
        day = excluded.day, day_events = excluded.day_events, day_bytes = excluded.day_bytes
), new_streams AS (
    INSERT INTO streams (stream, state, digest, last_epoch, last_hlc, last_id, awaits, unproven,
        label, status, epoch, task_type, creator, membership, created_at, expiry_ms)
    SELECT s.* FROM new_head, unnest($30::bytea[], $31::bytea[], $32::bytea[], $33::bigint[], $34::bigint[],
        $35::bytea[], $36::bytea[], $37::boolean[], $38::text[], $39::text[], $40::bigint[], $41::text[],
        $42::bytea[], $43::bytea[], $44::bigint[], $45::bigint[]) s
    ON CONFLICT (stream) DO UPDATE SET state = excluded.state, digest = excluded.digest,
        last_epoch = excluded.last_epoch, last_hlc = excluded.last_hlc, last_id = excluded.last_id,
        awaits = excluded.awaits, unproven = excluded.unproven, label = excluded.label, status = excluded.status,
        epoch = excluded.epoch, task_type = excluded.task_type, creator = excluded.creator,
        membership = excluded.membership, created_at = excluded.created_at, expiry_ms = excluded.expiry_ms
), new_verdicts AS (
    INSERT INTO verdicts (event_id, stream, status, reason, message)
    SELECT v.* FROM new_head, unnest($46::bytea[], $47::bytea[], $48::text[], $49::text[], $50::text[]) v
)
SELECT version, pg_notify('wattswarm_log', version::text) FROM new_head;

-- name: write_batch
-- All that a transaction adds, in one statement: events, certificates, chains, folds, votes, verdicts, totals. Who
-- listens is told the version of the log that it makes. Gives the arrival number of the last certificate, if there is one.
WITH new_events AS (
    INSERT INTO events (seq, event_id, author, author_seq, stream, epoch, hlc, kind, body, signature)
    SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bigint[],
        $8::text[], $9::bytea[], $10::bytea[])
), new_certificates AS (
    INSERT INTO certificates (certificate_id, kind, stream, body)
    SELECT * FROM unnest($11::bytea[], $12::text[], $13::bytea[], $14::bytea[])
    RETURNING seq
), new_chains AS (
    INSERT INTO chains (author, seq, event_id, hlc, day, day_events, day_bytes, void_from)
    SELECT * FROM unnest($15::bytea[], $16::bigint[], $17::bytea[], $18::bigint[], $19::bigint[], $20::bigint[],
        $21::bigint[], $22::bigint[])
    ON CONFLICT (author) DO UPDATE SET seq = excluded.seq, event_id = excluded.event_id, hlc = excluded.hlc,
        day = excluded.day, day_events = excluded.day_events, day_bytes = excluded.day_bytes,
        void_from = excluded.void_from
), new_streams AS (
    INSERT INTO streams (stream, state, digest, last_epoch, last_hlc, last_id, awaits, unproven,
        label, status, epoch, task_type, creator, membership, created_at, expiry_ms)
    SELECT * FROM unnest($23::bytea[], $24::bytea[], $25::bytea[], $26::bigint[], $27::bigint[], $28::bytea[],
        $29::bytea[], $30::boolean[], $31::text[], $32::text[], $33::bigint[], $34::text[], $35::bytea[], $36::bytea[],
        $37::bigint[], $38::bigint[])
    ON CONFLICT (stream) DO UPDATE SET state = excluded.state, digest = excluded.digest,
        last_epoch = excluded.last_epoch, last_hlc = excluded.last_hlc, last_id = excluded.last_id,
        awaits = excluded.awaits, unproven = excluded.unproven, label = excluded.label, status = excluded.status,
        epoch = excluded.epoch, task_type = excluded.task_type, creator = excluded.creator,
        membership = excluded.membership, created_at = excluded.created_at, expiry_ms = excluded.expiry_ms
), new_votes AS (
    INSERT INTO finality_votes (task, epoch, candidate_hash, event_id)
    SELECT * FROM unnest($39::bytea[], $40::bigint[], $41::bytea[], $42::bytea[])
), new_verdicts AS (
    INSERT INTO verdicts (event_id, stream, status, reason, message)
    SELECT * FROM unnest($43::bytea[], $44::bytea[], $45::text[], $46::text[], $47::text[])
), new_head AS (
    UPDATE log_head SET seq = $48, events = $49, events_sum = $50, certificates = $51, certificates_sum = $52,
        state_root = $53, max_hlc = $54, parked = $55, memberships = $56, version = version + 1
    RETURNING version
)
SELECT (SELECT max(seq) FROM new_certificates), pg_notify('wattswarm_log', version::text) FROM new_head;
