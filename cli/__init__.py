"""The ``wattswarm`` command: one file per group of commands. Thin: parse, call, show."""
