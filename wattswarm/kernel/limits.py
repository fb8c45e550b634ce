"""Every bound of the protocol (docs/protocol.md §10), with its unit last in the name."""

from __future__ import annotations

LOCAL_PROTOCOL_VERSION = "0.1.0"
protocol_versions: tuple[str, ...] = (LOCAL_PROTOCOL_VERSION,)
"""Whose events this program understands: its own version's, and those of earlier ones."""
CONTRACT_PROTOCOL_VERSION = "v0.1"

event_bytes_max = 131_072
event_payload_bytes_max = 131_072
inline_evidence_bytes_max = 65_536
inline_media_bytes_max = 0
structured_summary_bytes_max = 65_536
clock_skew_tolerance_ms = 3_000
author_ahead_ms_max = clock_skew_tolerance_ms  # less, and who is that much ahead could keep all others waiting
backfill_batch_events = 256
reputation_scale = 10_000

text_bytes_max = 256
label_chars_max = 128
evidence_digest_bytes_max = 256
evidence_refs_max = 16
codec_depth_max = 40
counter_max = (1 << 63) - 1
reason_text_bytes_max = 65_536
error_namespace_bytes_max = 64
error_message_bytes_max = 4_096
reason_codes_max = 64
salt_hex_chars_min = 32

lease_ms_max = 3_600_000
reveal_deadline_ms_max = 3_600_000
expiry_horizon_ms_max = 366 * 24 * 3_600_000
retry_horizon_ms_max = 3_600_000

schema_bytes_max = 32_768
schema_depth_max = 32
schema_pattern_bytes_max = 512
schema_weight_max = 4_096
schema_nesting_max = 64
extreme_numbers_max = 256

finalizers_max = 128
members_max = 400
genesis_bytes_max = 131_072
certificate_bytes_max = 524_288
bundle_bytes_max = 16_777_216
advisories_open_max = 64
signer_rounds_kept = 4
quota_events_per_day = 1_000_000
quota_bytes_per_day = 1 << 30

parked_orphans_max = 10_000
parked_early_max = 10_000
parked_per_author_max = 256
parked_unknown_authors_max = 1_000
parked_certificates_max = 1_000
parked_certificates_bytes_max = 16_777_216

inline_mime_allowlist = ("application/json", "text/plain", "text/markdown", "text/csv")

events_remembered_max = 512
contracts_remembered_max = 256
