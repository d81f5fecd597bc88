"""Does a source of one length still help a target of another? Sources of 20 tokens, targets of 5 to 80.

Three starter prompts of the sentiment family are resized by `resize_prompt` and scored on the validation split of
`news_sentiment` without any tuning. A prompt of sampled vocabulary of the same length is scored for comparison.

    python experiments/length_mismatch.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch

from spoton import Recipe, evaluate, load_model, load_task, starter_library
from spoton.prompts.soft_prompt import resize_prompt
from spoton.tuning.initial_prompt import starting_prompt
from spoton.tuning.record import versions, write_record

RESULT = Path(__file__).parents[1] / "docs" / "experiments" / "length_mismatch.json"
LENGTHS = (5, 10, 20, 40, 80)
SOURCES = ("movie_sentiment", "tweet_sentiment", "product_sentiment")


def main() -> None:
    """Runs everything and writes one record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--examples", type=int, default=150, help="validation examples to score on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, library = load_model(), starter_library()
    task = load_task("news_sentiment").limited(validation=arguments.examples)
    rows = []
    for length in LENGTHS:
        values = {name: resize_prompt(library.get(name).value, length) for name in SOURCES}
        values |= {
            f"sampled vocabulary, seed {seed}": starting_prompt(
                model, task, Recipe(length=length, seed=seed)
            )[0]
            for seed in range(2)
        }
        for name, value in values.items():
            score = evaluate(model, value, task.validation, task).score
            rows.append({"length": length, "start": name, "validation": score})
            sys.stderr.write(f"{rows[-1]}\n")
        sources = [row["validation"] for row in rows if row["length"] == length and row["start"] in SOURCES]
        sys.stderr.write(f"P = {length}: mean of the sources {statistics.mean(sources):.1f}\n")
    write_record(
        RESULT, {"task": task.name, "examples": arguments.examples, "rows": rows, "versions": versions()}
    )


if __name__ == "__main__":
    main()
