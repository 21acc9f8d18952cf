"""Does the demo model mean what it is told? Runs the real Diffusers pipelines and measures. Trains nothing."""
