"""Tunes the prompts of the starter library: sources for SmolLM2-135M that ship with spoton.

Eight bundled tasks of four families, each with one recipe and its scores on validation and test on its card. A prompt
that is there already is not tuned again (``--replace`` does). ``make starter-library`` runs this.

``news_sentiment`` and ``disambiguation_qa`` are left out on purpose: they are the targets of the demo and of the
transfer experiment.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from spoton import PromptLibrary, Recipe, evaluate, load_model, tune
from spoton.tasks.catalog import load_task

FOLDER = Path(__file__).parents[1] / "src" / "spoton" / "prompts" / "starter"
# The default recipe, so that keys compare with those of targets tuned by default; only with more steps.
RECIPE = Recipe.preset("decoder", steps=240, evaluate_every=40)
TASKS = (
    "movie_sentiment", "tweet_sentiment", "product_sentiment", "stereoset_bias_type", "crows_pairs_bias_type",
    "medical_subject", "stereoset_relation", "openbookqa",
)  # fmt: skip
# Looks at these many examples: enough to rank checkpoints, and a test score with a standard error of about 3 points.
VALIDATION, TEST = 100, 200


def main() -> None:
    """Tunes what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=TASKS, help="only these")
    parser.add_argument("--replace", action="store_true", help="tune again what is there")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    FOLDER.mkdir(parents=True, exist_ok=True)
    library = PromptLibrary(FOLDER)
    model = load_model()
    for name in arguments.tasks:
        if name in {entry.name for entry in library.list()} and not arguments.replace:
            continue
        task = load_task(name).limited(validation=VALIDATION, test=TEST)
        tuned = tune(model, task, RECIPE, on_event=lambda e: print(e, file=sys.stderr, flush=True))
        test = evaluate(model, tuned.prompt, task.test, task)
        card = tuned.prompt.card
        card = card.model_copy(update={"scores": card.scores | {"test": test.scores}})
        library.add(replace(tuned.prompt, card=card), replace=True)
        print(f"{name}: {card.scores} in {tuned.seconds:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
