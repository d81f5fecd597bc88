"""Decides which rows are tuned on, which choose the checkpoint, and which give the score.

Many public test splits have no labels, so the paper reports the validation split that also chose the checkpoint
(`paper`). `honest` reserves rows for the score alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from spoton.errors import DataError
from spoton.files import sha256_of_text
from spoton.tasks.render import Rendered
from spoton.tasks.splits import AT_MOST, FRACTIONS, stratified_split
from spoton.tasks.task import Example
from spoton.tasks.task_info import TaskInfo

Protocol = Literal["honest", "paper"]
SplitExamples = tuple[Example, ...]


@dataclass(frozen=True)
class Divided:
    """The three splits of a task, and a sentence on the origin of the test split."""

    train: SplitExamples
    validation: SplitExamples
    test: SplitExamples
    note: str


def divide(info: TaskInfo, found: Mapping[str, Rendered], protocol: Protocol, seed: int) -> Divided:
    """Returns the three splits of a task from the splits of its source.

    Args:
        info: The task.
        found: Examples by official split, or all under `all`.
        protocol: `paper`: validation doubles as test. `honest`: the official test split if it has labels,
            else half of validation, with no group in both halves.
        seed: Seed of the halves, and of the splits where there are no official ones.

    Raises:
        DataError: The paper's protocol is asked of rows without an official validation split.
    """
    if "validation" not in found:
        return _own(info, found, protocol, seed)
    train, validation = tuple(found["train"].examples), tuple(found["validation"].examples)
    if info.archive is not None and isinstance(info.archive.members, dict):
        held = set(validation)
        train = tuple(example for example in train if example not in held)
    if protocol == "paper":
        return Divided(
            train, validation, validation, "Protocol paper: the test split is the validation split."
        )
    if "test" in found:
        test = tuple(found["test"].examples)
        return Divided(train, validation, test, "Protocol honest: the test split is the official one.")
    kept, test = halves(found["validation"], seed)
    return Divided(
        train, kept, test, "Protocol honest: the test split is half of the official validation split."
    )


def halves(rendered: Rendered, seed: int) -> tuple[SplitExamples, SplitExamples]:
    """Returns examples in two halves, in the given order: each target in proportion, no group in both."""
    order = sorted(set(rendered.groups), key=lambda group: sha256_of_text(["half", str(seed), group]))
    members: dict[str, list[int]] = {group: [] for group in order}
    for index, group in enumerate(rendered.groups):
        members[group].append(index)
    targets = [example.target for example in rendered.examples]
    total, sides = Counter[bool](), Counter[tuple[str, bool]]()
    second: set[int] = set()
    for group in order:
        there = [targets[index] for index in members[group]]
        # The lead of the first half in this group's targets; where that is even, in all targets.
        ahead = sum(sides[target, False] - sides[target, True] for target in set(there))
        to_second = (ahead, total[False] - total[True]) > (0, 0)
        sides.update((target, to_second) for target in there)
        total[to_second] += len(there)
        second.update(members[group] if to_second else ())
    return (
        _at(rendered.examples, [i for i in range(len(targets)) if i not in second]),
        _at(rendered.examples, sorted(second)),
    )


def _own(info: TaskInfo, found: Mapping[str, Rendered], protocol: Protocol, seed: int) -> Divided:
    if protocol == "paper":
        raise DataError(
            f"The rows of {info.name} found here have no official validation split, which the protocol `paper` "
            "reports. Use the protocol `honest`, or add the split."
        )
    archive = info.archive if "all" in found else None
    pool = found["all"] if "all" in found else found["train"]
    fractions = archive.fractions if archive is not None else FRACTIONS
    if "test" in found:
        fractions = (fractions[0] + fractions[2], fractions[1], 0.0)
    train, validation, test = stratified_split(
        pool.examples,
        labels=info.labels,
        fractions=fractions,
        at_most=archive.at_most if archive is not None else AT_MOST,
        groups=pool.groups,
        seed=seed,
    )
    return Divided(train, validation, tuple(found["test"].examples) if "test" in found else test, "")


def _at(examples: Sequence[Example], indices: Sequence[int]) -> SplitExamples:
    return tuple(examples[index] for index in indices)
