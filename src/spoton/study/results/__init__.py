"""What a study found, as plain values: collected from its folder or imported from published tables."""
