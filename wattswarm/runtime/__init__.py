"""Executors: the HTTP contract they serve, the client that calls them, the reference one, and who drives a task."""
