"""Ways to rank sources for a target, one a file: from the target and its sources to the best k and what it cost."""
