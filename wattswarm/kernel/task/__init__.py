"""The task fold: what a task's events mean, in canonical order (docs/protocol.md §4, §6, §7).

One file per family of rules; ``fold`` holds the table of them all and is what other rooms import.
"""
