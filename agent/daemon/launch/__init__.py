"""What a session starts with, and the guard's end of its launch."""
