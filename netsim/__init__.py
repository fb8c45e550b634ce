"""netsim: swarms in virtual time, broken in every way, each run reproducible from one number (docs/netsim.md)."""
