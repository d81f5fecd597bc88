"""Mixtures: rates against the formula, counts against the rates, samples by seed, and loading by name."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoton.errors import DataError, DownloadError
from spoton.tasks import Example, Task, list_tasks, load, resolve_task
from spoton.tasks.catalog import is_task
from spoton.tasks.fill import fill
from spoton.tasks.mixture import (
    CAP,
    HELD_OUT,
    mix,
    mixing_rates,
    mixture_members,
    mixture_name,
    named_mixtures,
    names_within,
    shared_out,
)
from spoton.tuning.row_order import rows_of_step
from tests.tasks.test_sources import ROWS, write

sizes = st.lists(st.integers(1, 2 * CAP), min_size=1, max_size=8)


def member(name: str, train: int, labels: tuple[str, ...] | None = ("no", "yes"), held: int = 6) -> Task:
    def rows(split: str, count: int) -> tuple[Example, ...]:
        return tuple(Example(f"{name} {split} {i}", ("no", "yes")[i % 2]) for i in range(count))

    return Task(
        name=name,
        family="f",
        train=rows("train", train),
        validation=rows("validation", held),
        test=rows("test", held),
        labels=labels,
        metrics=("accuracy",),
        template="",
        source=f"file:{name}",
    )


def share(task: Task, of: str) -> int:
    return sum(row.input.startswith(f"{of} ") for row in task.train)


@given(sizes)
def test_rates_are_in_proportion_up_to_the_cap(counts: list[int]) -> None:
    rates = mixing_rates(counts)
    capped = [min(count, 524288) for count in counts]
    assert rates == pytest.approx([count / sum(capped) for count in capped])


def test_temperature_makes_rates_more_equal() -> None:
    assert mixing_rates([100, 400], temperature=2) == pytest.approx([1 / 3, 2 / 3])
    assert mixing_rates([1, 10**6], temperature=1e9) == pytest.approx([0.5, 0.5])
    assert mixing_rates([100, 10**9], cap=300) == [0.25, 0.75]
    for wrong in ({"cap": 0}, {"temperature": 0.0}):
        with pytest.raises(DataError, match="Mixing needs"):
            mixing_rates([1], **wrong)  # type: ignore[arg-type]  # one of the two


@given(st.integers(8, 10**6), sizes)
def test_counts_are_the_shares_rounded(total: int, counts: list[int]) -> None:
    rates = mixing_rates(counts)
    found = shared_out(total, rates)
    assert all(
        abs(count - total * rate) <= 1 + 1e-6 or count == 1 for count, rate in zip(found, rates, strict=True)
    )
    assert total <= sum(found) <= total + len(rates)


def test_a_mixture_in_proportion_is_all_the_rows() -> None:
    mixed = mix("m", [member("a", 30), member("b", 10)])
    assert (share(mixed, "a"), share(mixed, "b")) == (30, 10)
    assert set(mixed.train) == {*member("a", 30).train, *member("b", 10).train}
    assert Counter(row.input[0] for row in mixed.train[:8]) == {"a": 6, "b": 2}, (
        "in proportion from the beginning"
    )
    assert mixed.labels == ("no", "yes") and mixed.metric == "accuracy"
    assert mixed.notes[0] == "A pass over the mixture has 40 examples: a 30 (75.0 %), b 10 (25.0 %)."
    assert mixed.source == "mixture, cap 524288, temperature 1: a 0.7500 (file:a); b 0.2500 (file:b)"


def test_members_above_their_share_are_sampled_and_those_below_repeated() -> None:
    parts = [member("a", 90), member("b", 10)]
    mixed = mix("m", parts, temperature=1e9)
    assert (share(mixed, "a"), share(mixed, "b")) == (50, 50)
    assert len({row for row in mixed.train if row.input[0] == "a"}) == 50
    assert set(Counter(row for row in mixed.train if row.input[0] == "b").values()) == {5}
    capped = mix("m", parts, cap=30)
    assert (share(capped, "a"), share(capped, "b")) == (30, 10)
    published = mix("m", parts, sizes=[100, 300])
    assert (share(published, "a"), share(published, "b")) == (25, 75)


def test_the_seed_decides_the_sample() -> None:
    parts = [member("a", 90), member("b", 10)]
    assert mix("m", parts, cap=30) == mix("m", parts, cap=30)
    assert mix("m", parts, cap=30, seed=1).data_hash() != mix("m", parts, cap=30).data_hash()


def test_the_batches_of_a_mixture_follow_from_seed_and_step_and_realise_its_rates() -> None:
    mixed = mix("m", [member("a", 60), member("b", 20)])
    steps = [rows_of_step(len(mixed.train), 8, step, seed=3) for step in range(30)]  # three passes
    drawn = Counter(mixed.train[row].input[0] for rows in steps for row in rows)
    assert drawn == {"a": 180, "b": 60}
    assert rows_of_step(len(mixed.train), 8, 17, seed=3) == steps[17]


def test_held_out_splits_have_as_many_of_each_member() -> None:
    mixed = mix("m", [member("a", 9, held=4 * HELD_OUT), member("b", 9, held=2 * HELD_OUT)])
    assert Counter(row.input[0] for row in mixed.validation) == {"a": HELD_OUT, "b": HELD_OUT}
    assert len(mix("m", [member("a", 9, held=7), member("b", 9, held=5)]).test) == 10


def test_members_with_other_labels_make_targets_open() -> None:
    mixed = mix("m", [member("a", 9), member("b", 9, labels=None)])
    assert mixed.labels is None and mixed.metrics == ("token_f1", "exact_match")


def test_the_template_that_all_members_share_reads_new_texts() -> None:
    one, two = (replace(member(name, 4), template="{{ body }}\nAnswer:", target="stars") for name in "ab")
    mixed = mix("m", [one, two])
    assert (mixed.template, mixed.target) == ("{{ body }}\nAnswer:", "stars")
    assert fill(mixed.template, ["a joy"]) == ["a joy\nAnswer:"]


def test_members_with_different_templates_make_the_text_the_input() -> None:
    mixed = mix("m", [replace(member(name, 4), template=f"{{{{ {name} }}}}") for name in "ab"])
    assert mixed.template == "" and any("different templates" in note for note in mixed.notes)
    assert fill(mixed.template, ["a joy"]) == ["a joy"]


def test_the_sentence_that_older_cards_have_as_template_is_refused() -> None:
    with pytest.raises(DataError, match=r"'mixture of a, b', which reads no column"):
        fill("mixture of a, b", ["a joy", "a bore"])
    assert fill("{% for name in row %}{{ row[name] }}{% endfor %}", ["a joy"]) == ["a joy"]


def test_members_need_names_of_their_own() -> None:
    with pytest.raises(DataError, match="names of their own, found a, a"):
        mix("m", [member("a", 9), member("a", 9)])


def test_the_mixtures_of_the_paper() -> None:
    mixtures = named_mixtures()
    counted = {name: len(members) for name, members in mixtures.items()}
    # Table 1; NLI is 7 data sets with the three rounds of ANLI as one.
    assert counted == {
        "c4": 1, "mnli": 1, "squad": 1, "glue": 8, "superglue": 8, "nli": 9, "paraphrase": 4, "sentiment": 5, "mrqa": 6,
        "rainbow": 6, "translation": 3, "summarization": 9, "gem": 8, "all": 1 + 55,
    }  # fmt: skip
    assert all(is_task(name) for members in mixtures.values() for name in members)
    every = {name for mixture, members in mixtures.items() if mixture != "all" for name in members}
    assert set(mixtures["all"]) == every - {"superglue_rte"}, "RTE counts once"
    assert {info.name for info in list_tasks("spot-paper", "source")} - set(mixtures["all"]) == {
        "drop",
        "race",
    }


def test_the_name_of_a_mixture_tells_its_members() -> None:
    assert names_within(mixture_name("mnli, trec", ["mnli", "trec"])) == {"mnli", "trec"}
    for name, members in named_mixtures().items():
        assert names_within(mixture_name(name, members)) == set(members)
    assert names_within("glue") == {"glue"}, "only a mixture has members"


def test_mixtures_that_are_none() -> None:
    with pytest.raises(DataError, match=r"no mixture 'glu'\. Mixtures: c4, mnli, .*commas"):
        mixture_members("glu")
    with pytest.raises(DataError, match="names cb more than once"):
        mixture_members("cb, copa,cb")


def test_a_mixture_of_tasks_and_files(tmp_path: Path) -> None:
    write(tmp_path / "data" / "boolq", ROWS)
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n" + "".join(f"s{i},{'ab'[i % 2]}\n" for i in range(20)))
    mixed = resolve_task(f"mixture:boolq,{file}", data_dir=tmp_path / "data", protocol="paper", prefix="none")
    assert mixed.name == "mixture-boolq+reviews" and mixed.family == "mixture"
    assert mixed.splits() == {"train": 22, "validation": 4, "test": 4}
    assert mixed.protocol == "paper" and "folder:data/boolq, protocol paper" in mixed.source
    assert all(one.input != other.input for one, other in pairwise(mixed.train))


def test_members_without_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "boolq", ROWS)
    loaded = load.load_task

    def without(name: str, *seed: int, **arguments: object) -> Task:
        if name == "record":
            raise DownloadError("no rows of record")
        return loaded(name, *seed, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(load, "load_task", without)
    with pytest.raises(DownloadError, match="no rows of record"):
        resolve_task("mixture:boolq,record", data_dir=tmp_path)
    mixed = resolve_task("mixture:boolq,record", data_dir=tmp_path, available_only=True)
    assert mixed.notes[-1] == "Left out, for want of rows: record."


def test_temperatures_at_the_edges() -> None:
    assert mixing_rates([300, 100], temperature=0.001) == [1.0, 0.0]
    for wrong in (float("nan"), float("inf"), 0.0):
        with pytest.raises(DataError, match="finite temperature"):
            mixing_rates([300, 100], temperature=wrong)
