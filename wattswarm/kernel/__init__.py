"""The pure core: what an event is, when it is valid, and what a set of events means.

Nothing here does I/O, reads a clock, draws random numbers, logs or awaits. Every function is a function of
its arguments, so the same set of events gives the same state in the daemon, in a test and in the simulator.
"""
