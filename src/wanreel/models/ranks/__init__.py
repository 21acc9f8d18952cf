"""Tensors of one forward on several ranks: who exchanges what. Knows nothing of models, processes or orders."""
