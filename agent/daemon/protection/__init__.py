"""Protected places: found, and held by mounts or by ownership."""
