"""What results mean: gains, correlation, retrieval, verdicts. Nothing here draws or writes."""
