"""What operators may ask of a running agent, and containing a session on demand."""
