"""The policy in force: read, demanded of the machine, and followed while the session runs."""
