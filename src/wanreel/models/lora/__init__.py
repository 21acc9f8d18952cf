"""LoRA: files as people have them, judged before use, applied beside the weights and never into them."""
