"""A study's results as plain values: collected from its folder or imported from published tables."""
