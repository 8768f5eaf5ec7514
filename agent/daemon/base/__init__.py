"""What all of the daemon stands on: what a run was asked to do, where its things lie, its own events."""
