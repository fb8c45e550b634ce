-- name: live_items
-- Everything that is live, as reconciliation compares it: unix ms and id.
SELECT e.hlc >> 16, e.event_id FROM events e LEFT JOIN chains c ON c.author = e.author
WHERE c.void_from IS NULL OR e.author_seq < c.void_from;

-- name: arrivals
SELECT coalesce((SELECT max(seq) FROM events), 0), coalesce((SELECT max(seq) FROM certificates), 0), version
FROM log_head;

-- name: certificate_ids
SELECT certificate_id, kind FROM certificates;

-- name: ruling
SELECT body FROM certificates WHERE kind IN ('membership', 'fork') ORDER BY seq;

-- name: all_chains
SELECT author, seq, event_id, void_from FROM chains;

-- name: advance
-- What came after two arrival numbers, and the chains that it may have changed, all of one moment: whose events came, and
-- everybody's if a certificate came that says whose events count.
WITH new_events AS MATERIALIZED (
    SELECT seq, event_id, author, body, signature FROM events WHERE seq > $1 ORDER BY seq LIMIT $2
), new_certificates AS MATERIALIZED (
    SELECT seq, certificate_id, kind, body FROM certificates WHERE seq > $3 ORDER BY seq LIMIT $4
), moved AS MATERIALIZED (
    SELECT author, seq, event_id, void_from FROM chains WHERE author IN (SELECT DISTINCT author FROM new_events)
    UNION
    SELECT author, seq, event_id, void_from FROM chains
    WHERE EXISTS (SELECT FROM new_certificates WHERE kind <> 'decision')
)
SELECT h.seq, h.events, h.events_sum, h.certificates, h.certificates_sum, h.state_root, h.max_hlc, h.parked,
    h.memberships, h.version,
    ARRAY(SELECT seq FROM new_events ORDER BY seq), ARRAY(SELECT event_id FROM new_events ORDER BY seq),
    ARRAY(SELECT body FROM new_events ORDER BY seq), ARRAY(SELECT signature FROM new_events ORDER BY seq),
    ARRAY(SELECT seq FROM new_certificates ORDER BY seq),
    ARRAY(SELECT certificate_id FROM new_certificates ORDER BY seq),
    ARRAY(SELECT kind FROM new_certificates ORDER BY seq), ARRAY(SELECT body FROM new_certificates ORDER BY seq),
    ARRAY(SELECT author FROM moved ORDER BY author), ARRAY(SELECT seq FROM moved ORDER BY author),
    ARRAY(SELECT event_id FROM moved ORDER BY author), ARRAY(SELECT void_from FROM moved ORDER BY author)
FROM log_head h;

-- name: ids_here
SELECT event_id FROM events WHERE event_id = ANY($1::bytea[]);

-- name: wires_of
-- As many as fit into $2 bytes, and one at least.
SELECT body, signature FROM (
    SELECT seq, body, signature, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS before
    FROM events WHERE event_id = ANY($1::bytea[])) e WHERE before < $2 ORDER BY seq;

-- name: span
-- Live events of one chain, ascending: as many as fit into $4 bytes, and one at least.
SELECT body, signature FROM (
    SELECT e.author_seq, e.body, e.signature,
        sum(octet_length(e.body)) OVER (ORDER BY e.author_seq) - octet_length(e.body) AS before
    FROM events e LEFT JOIN chains c ON c.author = e.author
    WHERE e.author = $1 AND e.author_seq BETWEEN $2 AND $3 AND (c.void_from IS NULL OR e.author_seq < c.void_from)
) e WHERE before < $4 ORDER BY author_seq;

-- name: certificates_of
-- As many as fit into $2 bytes, and one at least.
SELECT body FROM (
    SELECT seq, body, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS before
    FROM certificates WHERE certificate_id = ANY($1::bytea[])) c WHERE before < $2 ORDER BY seq;

-- name: items_between
-- What of an author's was known by arrival $4 and lies from $2 to before $3 (null: no end).
SELECT hlc >> 16, event_id FROM events
WHERE author = $1 AND author_seq >= $2 AND ($3::bigint IS NULL OR author_seq < $3) AND seq <= $4;
