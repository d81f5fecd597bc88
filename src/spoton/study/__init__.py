"""What SPoT shows: a study of sources x targets x seeds, its cells, where they run, and what follows from them."""
