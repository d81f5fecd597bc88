"""TF-IDF and logistic regression on local task data: accuracy by training size, mean and deviation over samples.

python experiments/classical_baseline.py --data-dir DIR [--table]; results go to
docs/experiments/classical_baseline.json. DIR holds <task>/train.jsonl and validation.jsonl. The whole validation
file is scored.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import sklearn

from spoton.evaluation.baseline import classical
from spoton.tasks import load_task

OUT = Path(__file__).resolve().parents[1] / "docs/experiments/classical_baseline.json"
TASKS = (
    "ag_news", "trec", "cr", "subj", "mpqa", "tweet_eval_emotion", "tweet_eval_irony", "tweet_eval_offensive",
    "sst2", "sick",
)  # fmt: skip
SIZES, SEEDS = (100, 500), (0, 1, 2)


def measure(data_dir: Path, names: list[str]) -> dict[str, object]:
    """Returns accuracy, chosen C and seconds for every task, size and sample."""
    rows = []
    for name in names:
        whole = load_task(name, data_dir=data_dir, protocol="paper")
        most = max(whole.labels or (), key=[row.target for row in whole.validation].count)
        majority = 100 * statistics.mean(row.target == most for row in whole.validation)
        for size in SIZES:
            for seed in SEEDS:
                task = whole.limited(train=size, seed=seed)
                began = time.process_time()
                found = classical(task, splits=("validation",), seed=seed)
                seconds = time.process_time() - began
                score = 100 * statistics.mean(
                    said == row.target
                    for said, row in zip(found.predictions["validation"], task.validation, strict=True)
                )
                rows.append(
                    {"task": name, "rows": size, "seed": seed, "accuracy": score, "majority": majority,
                     "c": found.c, "cpu_seconds": seconds}
                )  # fmt: skip
                print(rows[-1], flush=True)
    return {"scikit-learn": sklearn.__version__, "results": rows}


def table(document: dict[str, list[dict[str, float]]]) -> str:
    """Returns the results as Markdown."""
    lines = ["| task | majority | 100 rows | 500 rows | CPU seconds, 500 rows |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(row["task"] for row in document["results"]):
        of = [row for row in document["results"] if row["task"] == name]
        cells = []
        for size in SIZES:
            scores = [row["accuracy"] for row in of if row["rows"] == size]
            cells.append(f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}")
        seconds = statistics.mean(row["cpu_seconds"] for row in of if row["rows"] == SIZES[-1])
        lines.append(f"| {name} | {of[0]['majority']:.1f} | {' | '.join(cells)} | {seconds:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--table", action="store_true", help="only print the table of what was measured")
    arguments = parser.parse_args()
    if not arguments.table:
        OUT.write_text(json.dumps(measure(arguments.data_dir, arguments.tasks.split(",")), indent=1) + "\n")
    print(table(json.loads(OUT.read_text())))
