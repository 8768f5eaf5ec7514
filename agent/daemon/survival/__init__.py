"""What outlives a guard, a pause and a restore."""
