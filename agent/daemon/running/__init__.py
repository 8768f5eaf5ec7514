"""One session from its bring-up to its end, or from a guard's death on: what a guard consists of."""
