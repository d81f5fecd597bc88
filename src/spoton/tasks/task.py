"""The task: text-to-text examples, splits, label words and metrics.

A plain value. It neither reads files (see `files`, `catalog`, `hub`) nor scores answers (see `metrics`).
"""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property

from spoton.arguments import is_count, require_kind, shown
from spoton.errors import DataError
from spoton.files import sha256_of_text
from spoton.tasks.example import Example
from spoton.tasks.metrics import CORRELATIONS, number, require_known
from spoton.tasks.splits import k_per_label, stratified_sample
from spoton.tasks.stored.hashing import hash_of_stored
from spoton.tasks.stored.rows import StoredRows, target_counts

_EXAMPLE = "spoton.Example(input, target), both of them texts."

__all__ = ["Example", "Task", "require_label_words"]


def require_label_words(labels: Sequence[str], task: str) -> None:
    """Refuses label words that cannot be told apart.

    Args:
        labels: The label words.
        task: Name of their task, for the message.

    Raises:
        DataError: There are fewer than two, two are equal, or one is empty.
    """
    if len(set(labels)) < 2 or len(set(labels)) != len(labels) or "" in labels:
        raise DataError(
            f"Task {task!r} has labels {list(labels)}; expected at least two, all different, none empty."
        )


@dataclass(frozen=True, repr=False)
class Task:
    """Examples in three splits, and how their answers are scored.

    Raises:
        DataError: A field or an example is not of its type, a target is not among the labels, there are fewer than two
            labels, a metric is unknown or does not suit the targets, or the train split is empty.
    """

    name: str
    family: str
    """Kind of task ("sentiment", "commonsense", ...), for people; retrieval never reads it."""
    train: Sequence[Example]
    """A tuple, or `StoredRows` where the file is too large to hold as objects; so are the other splits."""
    validation: Sequence[Example]
    test: Sequence[Example]
    labels: tuple[str, ...] | None
    """The label words in their fixed order, or None if targets are open."""
    metrics: tuple[str, ...]
    """Names in `METRICS`, or `mean` of the others; the first is the main metric."""
    template: str
    """The Jinja template that made the inputs, for the record."""
    source: str
    """Where the examples came from: `folder:...`, `bundled:...`, `file:...` or `hub:...`."""
    target: str = ""
    """Column of the targets in the user's own data."""
    license: str = ""
    protocol: str = "honest"
    """`honest`: test rows are used only for the score. `paper`: the validation split doubles as test."""
    form: str = ""
    """Catalog form of the inputs and labels: `t5` or `natural`; empty for a user's own rows."""
    instruction: str = ""
    """The task and its answers in one or two plain sentences, as for a person."""
    notes: tuple[str, ...] = ()
    """Notes for the user on how the data was read, one sentence each."""

    def __post_init__(self) -> None:
        """Refuses a task that cannot be tuned or scored."""
        if not self.train:
            raise DataError(f"Task {self.name!r} has no train examples. Give it at least a few.")
        self._check_values()
        require_known(self.metrics)
        if self.labels is not None:
            self._check_labels(self.labels)
        self._check_correlations()

    def __repr__(self) -> str:
        """Returns what it is, with the number of its examples in place of their texts."""
        splits = ", ".join(f"{split}={count}" for split, count in self.splits().items())
        return (
            f"Task(name={self.name!r}, {splits}, labels={self.labels!r}, metrics={self.metrics!r}, "
            f"source={self.source!r})"
        )

    @property
    def metric(self) -> str:
        """The main metric."""
        return self.metrics[0]

    def splits(self) -> dict[str, int]:
        """Number of examples in each split."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}

    def data_hash(self) -> str:
        """16 hex digits over every example of every split, in order; computed once."""
        return self._data_hash

    @cached_property
    def _data_hash(self) -> str:
        if (known := hash_of_stored(self.train, self.validation, self.test)) is not None:
            return known
        parts: list[str] = []
        for name, split in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            parts += [name, str(len(split))]
            for example in split:
                parts += [example.input, example.target]
                if example.references or example.question:  # left out otherwise, to keep older hashes valid
                    parts += [*example.references, example.question]
        return sha256_of_text(parts)[:16]

    def limited(
        self,
        train: int | None = None,
        validation: int | None = None,
        test: int | None = None,
        seed: int = 0,
    ) -> "Task":
        """Returns the same task with at most this many examples per split, each label in proportion.

        None keeps the whole split. A smaller sample is part of a larger one.
        """
        return replace(
            self,
            train=self._sample(self.train, train, seed),
            validation=self._sample(self.validation, validation, seed),
            test=self._sample(self.test, test, seed),
        )

    def k_shot(self, k: int, seed: int = 0) -> "Task":
        """Returns the same task with `k` train examples of each label (`k` in total where targets are open).

        Raises:
            DataError: A label has fewer than `k` train examples.
        """
        return replace(self, train=k_per_label(self.train, k, self.labels, seed))

    def balanced(self) -> "Task":
        """Returns the same task with training rows of rarer labels repeated, so that labels weigh about the same.

        The ratio to the largest label's count, rounded, is how often a label's rows appear. For a loop with equal
        batches, this is the same as class weights in the loss. Open targets stay unchanged.
        """
        counts = target_counts(self.train)
        if self.labels is None or not counts:
            return self
        most = max(counts.values())
        if isinstance(self.train, StoredRows):
            return replace(self, train=self.train.repeated(counts, most))
        return replace(
            self,
            train=tuple(row for row in self.train for _ in range(max(1, round(most / counts[row.target])))),
        )

    def _sample(self, split: Sequence[Example], size: int | None, seed: int) -> Sequence[Example]:
        if size is None:
            return split
        if not (is_count(size) or size == 0):
            raise DataError(f"A split cannot have {shown(size)} examples. Give a whole number of 0 or more.")
        if size >= len(split):
            return split
        return stratified_sample(split, size, self.labels, seed)

    def _check_values(self) -> None:
        """Refuses what a card could not hold, before a prompt is tuned and cannot be saved."""
        if not (isinstance(self.name, str) and self.name):
            raise DataError(f"A task has the name {shown(self.name)}; expected a text. Give it one.")
        for field in ("family", "template", "source"):
            require_kind(
                getattr(self, field), str, f"The {field} of task {self.name!r}", DataError, "a text."
            )
        for split in (self.train, self.validation, self.test):
            if isinstance(split, StoredRows):
                continue
            for row in split:
                require_kind(row, Example, f"An example of task {self.name!r}", DataError, _EXAMPLE)
                for text in (row.input, row.target):
                    require_kind(
                        text, str, f"A text of an example of task {self.name!r}", DataError, _EXAMPLE
                    )

    def _check_labels(self, labels: tuple[str, ...]) -> None:
        require_label_words(labels, self.name)
        targets = self.targets()
        if strange := targets.keys() - set(labels):
            raise DataError(
                f"Task {self.name!r} has targets that are not among its labels {list(labels)}: "
                f"{_shown(strange, targets)}. Add them to the labels or correct the rows."
            )

    def _check_correlations(self) -> None:
        wanted = [metric for metric in self.metrics if metric in CORRELATIONS]
        if isinstance(self.train, StoredRows) and self.train.store.facts["numbers"]:
            return
        targets = self.targets() if wanted else Counter[str]()
        if strange := {target for target in targets if number(target) is None}:
            raise DataError(
                f"Task {self.name!r} has the metric {wanted[0]} and targets that are not numbers: "
                f"{_shown(strange, targets)}. Choose other metrics or correct the rows."
            )

    def targets(self) -> Counter[str]:
        """How often each target occurs in all splits."""
        return sum(map(target_counts, (self.train, self.validation, self.test)), Counter[str]())


def _shown(strange: Set[str], targets: Counter[str]) -> str:
    """Returns the first few of some targets, with their counts."""
    return ", ".join(f"{target!r} ({targets[target]} times)" for target in sorted(strange)[:5])
