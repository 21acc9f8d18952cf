"""Weights as people have them: authors' layout, single files, GGUF. What a file is is read from its header alone."""
