"""The options of data: declared once, checked by name, refused where they say nothing."""

import pytest

from spoton.cli.data_options import TaskOptions
from spoton.errors import DataError
from spoton.tasks import DataSpec


def test_every_flag_is_a_field_and_every_field_a_flag() -> None:
    flags = set(TaskOptions.__dataclass_fields__) - {"data", "label", "task_file", "chat"}
    assert flags == DataSpec.model_fields.keys() - {"hold_out"}


def test_words_may_hold_commas_in_quotes() -> None:
    assert DataSpec.of(None, {"labels": 'a, "b, c"'}).labels == ("a", "b, c")
    assert DataSpec.of(None, {"labels": "auto"}).labels == "auto"
    assert DataSpec.of(None, {"metrics": "accuracy,matthews"}).metrics == ("accuracy", "matthews")


def test_changes_keep_what_was_given_and_seed_is_the_split_seed() -> None:
    spec = DataSpec.of(DataSpec(input="a", target="b"), {"target": "c", "seed": 3})
    assert (spec.input, spec.target, spec.split_seed) == ("a", "c", 3)
    assert spec.given().keys() == {"input", "target", "split_seed"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inptu": "text"}, "inptu: there is no such field; did you mean input?"),
        ({"delimiter": ";;"}, "delimiter: found ';;'; expected one character"),
        ({"max_rows": 0}, "max_rows: found 0"),
        ({"protocol": "dishonest"}, "protocol: found 'dishonest'"),
    ],
)
def test_mistakes_name_the_option(options: dict[str, object], words: str) -> None:
    with pytest.raises(DataError) as told:
        DataSpec.of(None, options)
    assert words in str(told.value)


def test_options_that_say_nothing_about_the_data_are_refused() -> None:
    with pytest.raises(DataError, match="a file, to which config never applies"):
        DataSpec(config="c").require_for("a file", "x.csv")
    DataSpec(split_seed=1, class_weights="balanced").require_for("a bundled task", "sst2")
