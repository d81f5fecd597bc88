"""The goals of the engine, and whether a result reaches them. Works on the plain values of `result.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.bench.names import COMPILED, DOCUMENTED, LIMIT, SMOLLM, SPOTON, T5, TUNED
from experiments.bench.ratios import pairwise_ratio


@dataclass(frozen=True)
class Goal:
    """`slow` takes at least `times` the time of `fast`."""

    model: str
    work: str
    length: int
    fast: str
    slow: str
    times: float

    @property
    def title(self) -> str:
        """Returns the title in the table."""
        what = f"{self.model}, {self.work}, P={self.length}: {self.fast}"
        return f"{what}, of the limit" if self.slow == LIMIT else f"{what}, times {self.slow}"

    def found(self, result: dict[str, Any]) -> dict[int, float]:
        """Returns the median ratio by batch size."""
        ratios = {
            c["batch_size"]: pairwise_ratio(c["rounds"], self.slow, self.fast)
            for c in result["configurations"]
            if (c["model"], c["work"], c["length"]) == (self.model, self.work, self.length)
        }
        return {size: ratio.median for size, ratio in ratios.items() if ratio}


GOALS = (
    Goal(SMOLLM, "training", 100, SPOTON, DOCUMENTED, 10),
    Goal(SMOLLM, "training", 100, SPOTON, TUNED, 3.5),
    Goal(SMOLLM, "training", 20, SPOTON, DOCUMENTED, 6),
    Goal(SMOLLM, "training", 20, SPOTON, TUNED, 2),
    Goal(SMOLLM, "training", 100, COMPILED, DOCUMENTED, 15),
    Goal(SMOLLM, "training", 100, COMPILED, TUNED, 5),
    Goal(SMOLLM, "scoring", 100, SPOTON, DOCUMENTED, 10),
    Goal(SMOLLM, "scoring", 100, SPOTON, TUNED, 5),
    Goal(SMOLLM, "training", 100, SPOTON, LIMIT, 0.45),
    Goal(SMOLLM, "training", 100, COMPILED, LIMIT, 0.60),
    Goal(T5, "training", 100, SPOTON, TUNED, 1.5),
)
MEMORY_GOALS = ((DOCUMENTED, 1 / 4), (TUNED, 1 / 2))


def goal_rows(result: dict[str, Any]) -> list[list[str]]:
    """Returns for each goal its title, the value it asks for, the values by batch size, and whether all reach it."""
    rows = []
    for goal in GOALS:
        found = goal.found(result)
        if found:
            as_share = goal.slow == LIMIT
            told = [f"{value:.0%}" if as_share else f"{value:.2f}" for value in found.values()]
            asked = f"at least {goal.times:.0%}" if as_share else f"at least {goal.times:g}"
            rows.append(
                [goal.title, asked, " / ".join(told), _reached([v >= goal.times for v in found.values()])]
            )
    for slow, most in MEMORY_GOALS:
        shares = [
            entry["bytes"][SPOTON] / entry["bytes"][slow]
            for entry in result["memory"]
            if entry["length"] == 100 and {SPOTON, slow} <= entry["bytes"].keys()
        ]
        if shares:
            told = [f"{share:.2f}" for share in shares]
            title = f"{SMOLLM}, memory of a training step, P=100: {SPOTON}, of {slow}"
            rows.append([title, f"at most {most:g}", " / ".join(told), _reached([s <= most for s in shares])])
    return rows


def _reached(each: list[bool]) -> str:
    return "yes" if all(each) else "**no**" if not any(each) else "**in part**"
