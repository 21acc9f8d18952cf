"""The front door on Ray: Serve carries the HTTP API, actors are the workers. The store stays the one place of the queue."""
