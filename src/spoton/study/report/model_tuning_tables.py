"""The report's section on model tuning, for studies that tuned the model."""

from __future__ import annotations

from spoton.study.analysis.analyse import Analysis
from spoton.study.analysis.model_tuning import model_tuning
from spoton.study.report.parts import Section, Table, count, mean_of, number, spread

_SCORES = {
    "from_scratch": "from scratch", "transfer": "transfer", "retrieval": "retrieval, k = {k}",
    "model_tuning": "model tuning", "multi_task_model_tuning": "multi-task model tuning",
}  # fmt: skip
_WORDS = {"prompt": "a prompt", "model": "the model"}


def model_tuning_sections(analysis: Analysis) -> list[Section]:
    """Returns a table of scores by target and one of tuned parameters; nothing if no model was tuned."""
    found = model_tuning(analysis)
    if found is None:
        return []
    k = found["k"]
    scores = [name for name in _SCORES if all(name in row for row in found["targets"])]
    columns = ("target", "zero-shot", *(_SCORES[name].format(k=k) for name in scores))
    rows = [
        (row["target"], number(row["zero_shot"]), *(spread(mean_of(row[name])) for name in scores))
        for row in found["targets"]
    ]
    text = (
        f"Scores on the {found['split']} split; where there are several seeds, mean ± standard "
        "deviation and their number. "
        "Transfer: the source that is best by validation, in each seed."
    )
    if found["similarity"]:
        text += (
            f" Retrieval: the best by validation of the {k} most similar sources by {found['similarity']}."
        )
    text += " Model tuning: all weights, on the same rows."
    if found["rates"]:
        rates = ", ".join(f"{rate:g}" for rate in found["rates"])
        text += f" Its learning rate is, for each target and seed, the best by validation of {rates}."
    if "multi_task_model_tuning" in scores:
        text += " Multi-task model tuning: the same, from weights that were tuned on a mixture of tasks."
    costs = [
        (_WORDS[name], count(size["parameters"]), count(size["bytes"]))
        for name, size in found["tuned"].items()
    ]
    sizes = "What is tuned and kept per task, in float32"
    if found["ratio"]:
        sizes += f"; the model has {found['ratio']:,.0f} times as many numbers as a prompt"
    return [
        Section(
            "Model tuning",
            [
                text, Table("model_tuning", columns, rows), f"{sizes}.",
                Table("tuned_numbers", ("tuned", "numbers", "bytes"), costs),
            ],
        )
    ]  # fmt: skip
