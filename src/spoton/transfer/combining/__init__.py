"""Ways to make starts from ranked sources, one per file: each start becomes a plain prompt with parents on its card."""
