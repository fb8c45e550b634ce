-- name: events
-- What people see of the log, by arrival. Each filter is off when null.
SELECT e.seq, e.event_id, e.body, e.signature, v.status, v.reason, v.message, s.label, c.void_from
FROM events e
LEFT JOIN verdicts v ON v.event_id = e.event_id
LEFT JOIN streams s ON s.stream = e.stream
LEFT JOIN chains c ON c.author = e.author
WHERE e.seq > $1
  AND ($2::bytea IS NULL OR e.stream = $2)
  AND ($3::text IS NULL OR e.kind = $3)
  AND ($4::bytea IS NULL OR e.author = $4)
  AND (NOT $5::boolean OR v.event_id IS NOT NULL OR e.author_seq >= c.void_from)
ORDER BY e.seq LIMIT $6;

-- name: tasks
SELECT stream, label, status, epoch, task_type, creator, created_at, expiry_ms
FROM streams WHERE label IS NOT NULL AND ($1::text IS NULL OR status = $1)
ORDER BY created_at DESC, stream LIMIT $2;

-- name: scan_certificates
SELECT seq, body FROM certificates WHERE seq > $1 ORDER BY seq LIMIT $2;

-- name: live_by_stream
-- The whole log in the order that folds want: stream by stream, each in canonical order.
SELECT e.stream, e.event_id, e.body, e.signature
FROM events e LEFT JOIN chains c ON c.author = e.author
WHERE c.void_from IS NULL OR e.author_seq < c.void_from
ORDER BY e.stream, e.epoch, e.hlc, e.event_id;

-- name: rows_page
-- Rows with the columns that their bodies must agree with.
SELECT seq, event_id, author, author_seq, stream, epoch, hlc, kind, body, signature
FROM events WHERE seq > $1 AND seq <= $2 ORDER BY seq;

-- name: ruling_certificates
-- Those that say who may speak, and until when.
SELECT body FROM certificates WHERE kind IN ('membership', 'fork') ORDER BY seq;

-- name: decisions_by_stream
SELECT stream, body FROM certificates WHERE kind = 'decision' ORDER BY stream, seq;

-- name: forget_folds
DELETE FROM streams;

-- name: forget_all_verdicts
DELETE FROM verdicts;

-- name: forget_chains
DELETE FROM chains;

-- name: rebuild_chains
-- The head of each chain below its void mark, and the day's quota it has used.
WITH voids (author, void_from) AS (SELECT * FROM unnest($1::bytea[], $2::bigint[])),
heads AS (
    SELECT DISTINCT ON (e.author) e.author, e.author_seq, e.event_id, e.hlc, (e.hlc >> 16) / 86400000 AS day
    FROM events e LEFT JOIN voids v ON v.author = e.author
    WHERE v.void_from IS NULL OR e.author_seq < v.void_from
    ORDER BY e.author, e.author_seq DESC
),
used AS (
    SELECT h.author, count(*) AS day_events, sum(octet_length(e.body) + octet_length(e.signature))::bigint AS day_bytes
    FROM heads h JOIN events e ON e.author = h.author AND e.author_seq <= h.author_seq
        AND (e.hlc >> 16) / 86400000 = h.day
    GROUP BY h.author
)
INSERT INTO chains (author, seq, event_id, hlc, day, day_events, day_bytes, void_from)
SELECT coalesce(h.author, v.author), coalesce(h.author_seq, -1), h.event_id, coalesce(h.hlc, -1), coalesce(h.day, -1),
    coalesce(u.day_events, 0), coalesce(u.day_bytes, 0), v.void_from
FROM heads h LEFT JOIN used u ON u.author = h.author FULL JOIN voids v ON v.author = h.author;

-- name: max_hlc
SELECT coalesce(max(hlc), 0) FROM events;

-- name: stream_digests
SELECT stream, digest FROM streams WHERE state IS NOT NULL ORDER BY stream;

-- name: arrivals_since
-- What arrived after one moment, in numbers of at most $3, and the tasks that it touches; the writer lock makes seq the
-- order of commits.
WITH new_events AS MATERIALIZED (
    SELECT seq, stream, event_id FROM events WHERE seq > $1 ORDER BY seq LIMIT $3
), new_certificates AS MATERIALIZED (
    SELECT seq, stream FROM certificates WHERE seq > $2 ORDER BY seq LIMIT $3
), tasks AS MATERIALIZED (
    SELECT stream, label, status, task_type, membership, created_at FROM streams
    WHERE stream IN (SELECT stream FROM new_events UNION SELECT stream FROM new_certificates)
        AND label IS NOT NULL AND state IS NOT NULL
)
SELECT ARRAY(SELECT seq FROM new_events ORDER BY seq), ARRAY(SELECT stream FROM new_events ORDER BY seq),
    ARRAY(SELECT event_id FROM new_events ORDER BY seq),
    ARRAY(SELECT seq FROM new_certificates ORDER BY seq), ARRAY(SELECT stream FROM new_certificates ORDER BY seq),
    ARRAY(SELECT stream FROM tasks ORDER BY created_at, stream),
    ARRAY(SELECT label FROM tasks ORDER BY created_at, stream),
    ARRAY(SELECT status FROM tasks ORDER BY created_at, stream),
    ARRAY(SELECT task_type FROM tasks ORDER BY created_at, stream),
    ARRAY(SELECT membership FROM tasks ORDER BY created_at, stream);

-- name: last_arrivals
SELECT coalesce((SELECT max(seq) FROM events), 0), coalesce((SELECT max(seq) FROM certificates), 0);

-- name: open_tasks
-- Tasks that somebody may have work with, oldest first.
SELECT stream, label, status, task_type, membership FROM streams
WHERE label IS NOT NULL AND state IS NOT NULL AND status IN ('OPEN', 'SUSPENDED')
ORDER BY created_at, stream;

-- name: void_authors
-- Whose chain ends before what was sent of it: by a fork, or as its author was removed.
SELECT author, void_from FROM chains WHERE void_from IS NOT NULL ORDER BY author;

-- name: certificates_among
SELECT certificate_id FROM certificates WHERE certificate_id = ANY($1::bytea[]);

-- name: last_spoke
SELECT author, hlc FROM chains WHERE author = ANY($1::bytea[]) AND event_id IS NOT NULL;
