"""Names of arms and models, in tables and in `result.json`."""

DOCUMENTED, TUNED, SPOTON, COMPILED = "PEFT as documented", "PEFT tuned", "spoton", "spoton compiled"
EXACT = "spoton in float32"  # never timed: it shows that the engine computes what PEFT computes
LIMIT = "matrix products alone"
SMOLLM, T5 = "SmolLM2-135M", "T5 v1.1 small (random)"
