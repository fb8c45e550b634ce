-- Which protocol version's rules the stored folds follow: another one folds every stream again (docs/protocol.md §4).
ALTER TABLE log_head ADD COLUMN folded_by text NOT NULL DEFAULT '0.1.0';
