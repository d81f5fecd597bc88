"""The engine benchmark: spoton against PEFT, the same model, texts, prompt and processor.

    make bench                                       # everything, some 25 minutes on two cores
    python -m experiments.bench --quick              # one configuration a kind, a smoke test
    python -m experiments.bench --write-docs         # puts build/bench/result.json into docs/performance.md

`texts` says what is read, `arms` who competes, `products` how fast it could be, `rounds` and `memory` how it
is measured, `ratios` what counts, `report` how it is told. Nothing here is part of the package, and the package
never imports PEFT.
"""
