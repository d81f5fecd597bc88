"""What serving costs and whether it is right: a benchmark against PEFT, and a soak of mixed traffic.

`python -m experiments.serving.bench` and `python -m experiments.serving.soak`; see docs/performance.md.
"""
