"""One video on several ranks: processes of one host, each with a GPU of its own. Rank 0 is the worker itself."""
