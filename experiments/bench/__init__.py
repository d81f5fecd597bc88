"""The engine benchmark: spoton against PEFT, with the same model, texts, prompt and processor.

    make bench                                       # everything, about 25 minutes on two cores
    python -m experiments.bench --quick              # one configuration of each kind, a smoke test
    python -m experiments.bench --write-docs         # puts build/bench/result.json into docs/performance.md

`texts` has the texts, `arms` the competitors and `products` the upper bound. `rounds` and `memory` measure, `ratios`
computes what counts, and `report` writes it down. Nothing here is part of the package, and the package never imports
PEFT.
"""
