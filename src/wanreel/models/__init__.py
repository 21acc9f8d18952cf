"""From a ModelSpec to modules on a device. Knows nothing of requests, jobs or files written."""
