"""From a ResolvedRequest to frames. Knows nothing of jobs, queues or front ends."""
