"""The analysis of results: gains, correlation, retrieval, verdicts. Nothing here draws or writes."""
