"""What can be asked for: pure Python, no torch, no web, no I/O."""
