"""Runs jobs: the worker's loop, one attempt, the supervisor of processes. Knows nothing of front ends."""
