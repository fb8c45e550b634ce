-- name: approve
-- What is approved again is the newest approval.
INSERT INTO membership_approvals (membership_hash) VALUES ($1)
ON CONFLICT (membership_hash) DO UPDATE SET number = DEFAULT, approved_at = now();

-- name: approved
SELECT membership_hash FROM membership_approvals ORDER BY number;

-- name: stand
-- All that the next step about the membership follows from, in short: as long as it is the same, so is that step.
SELECT (SELECT digest FROM streams WHERE stream = $1), (SELECT memberships FROM log_head),
    (SELECT count(*) FROM chains WHERE void_from IS NOT NULL), (SELECT count(*) FROM membership_signatures),
    (SELECT max(number) FROM membership_approvals);
