"""Model tuning: all weights of a copy of the model learn one task. The baseline that prompts are compared with."""
