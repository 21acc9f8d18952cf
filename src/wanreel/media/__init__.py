"""Pictures in, videos out. Knows nothing of models."""
