"""Ways to make starts of ranked sources, one a file: each start becomes a plain prompt with its parents on the card."""
