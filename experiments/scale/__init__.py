"""What costs what as things grow: rows, prompts in a library, cells of a study. `make bench-scale` runs them all."""
