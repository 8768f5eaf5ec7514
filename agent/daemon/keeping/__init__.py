"""The keeper's parts: the terminal, its processes, and what must be taken away at the end."""
