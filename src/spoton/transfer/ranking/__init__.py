"""Ways to rank sources for a target, one per file: each returns the best k sources and the cost of the ranking."""
