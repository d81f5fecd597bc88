"""Mixtures: several tasks tuned as one, each sampled at its rate (SPoT, section 2.1; T5, section 3.5.2).

A mixture is a `Task` like any other. Its train split repeats each member's examples according to the rates, so shuffled
passes sample at those rates, and seed and step alone determine a batch. `load` finds the members and their rows.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources

import yaml

from spoton.errors import DataError
from spoton.files import sha256_of_text
from spoton.tasks.task import Example, Task

CAP = 2**19
"""A task counts as at most this many examples (SPoT, section 2.1.3)."""
HELD_OUT = 100
"""Most validation and most test examples of each member. Equal numbers make a mixture's score the mean over its
members; the number itself was not measured."""
_NAME = "mixture-"  # what the name of a mixture begins with, as a task


@functools.cache
def named_mixtures() -> Mapping[str, tuple[str, ...]]:
    """Returns the paper's mixtures: name -> names of their members."""
    text = (resources.files("spoton.tasks") / "mixtures.yaml").read_text(encoding="utf-8")
    return {name: tuple(members) for name, members in yaml.safe_load(text).items()}


def mixture_members(spec: str) -> tuple[str, ...]:
    """Returns the members that `mixture:<spec>` names: those of a mixture of the paper, or a comma-separated list.

    Raises:
        DataError: The mixture does not exist, or a member is named twice.
    """
    if spec in named_mixtures():
        return named_mixtures()[spec]
    members = tuple(filter(None, (member.strip() for member in spec.split(","))))
    if len(members) < 2:
        raise DataError(
            f"There is no mixture {spec!r}. Mixtures: {', '.join(named_mixtures())}; or list at least two tasks "
            "with commas between them."
        )
    twice = sorted({member for member in members if members.count(member) > 1})
    if twice:
        raise DataError(f"The mixture names {', '.join(twice)} more than once. Name each task once.")
    return members


def mixture_name(spec: str, members: Sequence[str]) -> str:
    """Returns the name of the task that `mixture:<spec>` makes of these members."""
    return _NAME + (spec if spec in named_mixtures() else "+".join(members))


def names_within(task: str) -> frozenset[str]:
    """Returns the names of the tasks whose rows a task has: a mixture's members by its name, else the name itself."""
    rest = task.removeprefix(_NAME)
    if rest == task:
        return frozenset((task,))
    return frozenset(named_mixtures().get(rest) or rest.split("+"))


def mixing_rates(sizes: Sequence[int], *, cap: int = CAP, temperature: float = 1.0) -> list[float]:
    """Returns the share of each task: `min(size, cap) ** (1 / temperature)`, divided by their sum.

    Examples-proportional mixing at temperature 1; the higher the temperature, the more equal the shares.

    Raises:
        DataError: A size or the cap is below 1, or the temperature is not finite and above 0.
    """
    if cap < 1 or not (0 < temperature < math.inf) or not sizes or min(sizes) < 1:
        raise DataError(
            f"Mixing needs sizes and a cap of at least 1 and a finite temperature above 0; found sizes {list(sizes)}, "
            f"cap {cap}, temperature {temperature}."
        )
    weights: list[float] = [min(size, cap) for size in sizes]
    if temperature != 1:  # shares of the largest, since a power of the size itself may overflow
        most = max(weights)
        weights = [(weight / most) ** (1 / temperature) for weight in weights]
    return [weight / sum(weights) for weight in weights]


def mix(
    name: str,
    members: Sequence[Task],
    *,
    sizes: Sequence[int] | None = None,
    cap: int = CAP,
    temperature: float = 1.0,
    seed: int = 0,
) -> Task:
    """Combines several tasks into one.

    Its train split has as many examples as the members have up to the cap, divided by `mixing_rates`. A member that
    gets fewer than it has is sampled; one that gets more is repeated. Labels are kept if all members have the same
    ones. Otherwise targets are open, and scored as text.

    Args:
        name: Name of the mixture.
        members: The tasks, with distinct names.
        sizes: Size of each member in the rates. Default: its train examples.
        cap: Cap on the size of a member.
        temperature: 1 for proportional shares; higher for more equal ones.
        seed: Seed of the samples.

    Raises:
        DataError: As in `mixing_rates`, or two members have the same name.
    """
    names = _names(members)
    there = [len(member.train) for member in members]
    rates = mixing_rates(there if sizes is None else sizes, cap=cap, temperature=temperature)
    counts = shared_out(sum(min(size, cap) for size in there), rates)
    drawn = [_drawn(member, count, seed) for member, count in zip(members, counts, strict=True)]
    shared = {member.labels for member in members}
    labels = shared.pop() if len(shared) == 1 else None
    template, target, unread = _reading(members)
    shares = zip(names, counts, strict=True)
    realised = ", ".join(f"{name} {count} ({100 * count / sum(counts):.1f} %)" for name, count in shares)
    sources = [
        f"{member.name} {rate:.4f} ({member.source})" for member, rate in zip(members, rates, strict=True)
    ]
    return Task(
        name=name,
        family="mixture",
        train=_interleaved(drawn),
        validation=_held_out([member.validation for member in members], seed),
        test=_held_out([member.test for member in members], seed),
        labels=labels,
        metrics=("accuracy", "macro_f1") if labels is not None else ("token_f1", "exact_match"),
        template=template,
        target=target,
        source=f"mixture, cap {cap}, temperature {temperature:g}: {'; '.join(sources)}",
        license="; ".join(sorted({member.license for member in members} - {""})),
        protocol=_protocol(members),
        form=", ".join(sorted({member.form for member in members} - {""})),
        notes=(
            f"A pass over the mixture has {sum(counts)} examples: {realised}.",
            *unread,
            *dict.fromkeys(note for member in members for note in member.notes),
        ),
    )


def _names(members: Sequence[Task]) -> list[str]:
    """Returns the members' names, which have to differ."""
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        raise DataError(
            f"Members of a mixture need names of their own, found {', '.join(names)}. Rename one."
        )
    return names


def _reading(members: Sequence[Task]) -> tuple[str, str, tuple[str, ...]]:
    """Returns the template and the target column that all members share, and a note if they share no template."""
    templates, targets = {member.template for member in members}, {member.target for member in members}
    if len(templates) > 1:
        note = (
            "The members have different templates, so a prompt tuned on the mixture has none: it reads each new text "
            "as it is. Give whole inputs, as `tasks show` prints them."
        )
        return "", "", (note,)
    return templates.pop(), targets.pop() if len(targets) == 1 else "", ()


def shared_out(total: int, rates: Sequence[float]) -> list[int]:
    """Returns integers in proportion to the rates that sum to `total`: each is its share rounded down or up.

    The rest after rounding down goes to the largest remainders; a share is at least 1.
    """
    counts = [int(total * rate) for rate in rates]
    remainders = [total * rate - count for rate, count in zip(rates, counts, strict=True)]
    order = sorted(range(len(rates)), key=lambda index: (-remainders[index], index))
    for index in order[: max(0, total - sum(counts))]:
        counts[index] += 1
    return [max(1, count) for count in counts]


def _drawn(member: Task, count: int, seed: int) -> list[Example]:
    """Returns `count` train examples: whole passes, and a sample for the rest."""
    passes, rest = divmod(count, len(member.train))
    indices = sorted(
        range(len(member.train)),
        key=lambda index: sha256_of_text(["mixture", str(seed), member.name, str(index)]),
    )
    return [*member.train] * passes + [member.train[index] for index in sorted(indices[:rest])]


def _interleaved(parts: Sequence[Sequence[Example]]) -> tuple[Example, ...]:
    """Returns all examples in an order whose every prefix holds the parts in proportion."""
    placed = [
        ((position + 0.5) / len(part), index, example)
        for index, part in enumerate(parts)
        for position, example in enumerate(part)
    ]
    return tuple(example for _, _, example in sorted(placed, key=lambda each: each[:2]))


def _held_out(splits: Sequence[Sequence[Example]], seed: int) -> tuple[Example, ...]:
    """Returns as many examples of each split as the smallest has, at most `HELD_OUT`."""
    size = min(HELD_OUT, *map(len, splits))
    order = [
        sorted(
            split, key=lambda example: sha256_of_text(["held out", str(seed), example.input, example.target])
        )
        for split in splits
    ]
    # A question's key is unique only within its task.
    return _interleaved(
        [
            [
                replace(example, question=f"{index}: {example.question}") if example.question else example
                for example in split[:size]
            ]
            for index, split in enumerate(order)
        ]
    )


def _protocol(members: Sequence[Task]) -> str:
    """Returns `honest` only if every member is."""
    protocols = {member.protocol for member in members}
    return "honest" if protocols == {"honest"} else "paper"
