"""SEL, the signed event log of a node: storage, intake, authoring, replay (docs/architecture.md §3)."""
