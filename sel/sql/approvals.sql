-- name: approve
-- What is approved again is the newest approval.
INSERT INTO membership_approvals (membership_hash) VALUES ($1)
ON CONFLICT (membership_hash) DO UPDATE SET number = DEFAULT, approved_at = now();

-- name: approved
SELECT membership_hash FROM membership_approvals ORDER BY number;
