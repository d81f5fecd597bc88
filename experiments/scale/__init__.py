"""How costs grow with size: rows, prompts in a library, cells of a study. `make bench-scale` runs everything."""
