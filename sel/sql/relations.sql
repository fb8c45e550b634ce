-- name: order_friend
-- The operator's newest word about a node; the daemon follows by its number.
INSERT INTO relations (node_id, wish) VALUES ($1, $2)
ON CONFLICT (node_id) DO UPDATE SET number = DEFAULT, wish = $2, said_at = now();

-- name: relate
-- What the daemon knows of it. A newer order than it has seen stands.
INSERT INTO relations (node_id, number, wish, asked) VALUES ($1, $2, $3, $4)
ON CONFLICT (node_id) DO UPDATE
SET wish = CASE WHEN relations.number > $2 THEN relations.wish ELSE $3 END, asked = $4;

-- name: forget_relation
DELETE FROM relations WHERE node_id = $1 AND number <= $2;

-- name: relations
SELECT node_id, number, wish, asked FROM relations ORDER BY number;

-- name: order_place
INSERT INTO peer_places (about, wanted) VALUES ($1, $2)
ON CONFLICT (about) DO UPDATE SET number = DEFAULT, wanted = $2, said_at = now();

-- name: forget_places
-- The oldest orders above so many.
DELETE FROM peer_places WHERE number <= (SELECT number FROM peer_places ORDER BY number DESC OFFSET $1 LIMIT 1);

-- name: places
SELECT about, number, wanted FROM peer_places ORDER BY number;

-- name: tell
SELECT pg_notify('wattswarm_peers', '');
