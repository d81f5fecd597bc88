"""Model tuning: all weights of a copy of the model learn one task. It is the baseline for prompts."""
