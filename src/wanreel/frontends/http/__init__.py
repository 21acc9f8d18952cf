"""The HTTP front door: OpenAI's Videos API and more, behind one guard. It never imports torch."""
