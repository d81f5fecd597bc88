"""What serving costs and whether it is correct: a benchmark against PEFT, and a soak test with mixed traffic.

`python -m experiments.serving.bench` and `python -m experiments.serving.soak`; see docs/performance.md.
"""
