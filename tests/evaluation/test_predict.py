"""Predictions of a tiny model: probabilities, templates of several columns, mistakes."""

from typing import Any

import pandas as pd
import pytest

from spoton.errors import DataError, PromptError
from spoton.evaluation import predict
from spoton.prompts import Card, SoftPrompt
from spoton.tasks.catalog import task_info
from tests.tiny import WIDTH, draw, tiny


def prompt(
    fingerprint: str,
    labels: list[str] | None = None,
    template: str = "{{ text }}\nVerdict:",
    source: str = "file:toy.csv",
) -> SoftPrompt:
    card = Card(
        name="toy",
        task="toy",
        model="tiny-llama",
        model_fingerprint=fingerprint,
        labels=labels,
        template=template,
        source=source,
    )
    return SoftPrompt(draw(4, WIDTH), card)


def test_labels_come_with_probabilities() -> None:
    model = tiny("llama")
    texts = ["The film was lovely.", "The meal was cold."]
    found = predict(model, prompt(model.fingerprint, ["yes", "no"]), texts)
    assert [one.input for one in found] == [f"{text}\nVerdict:" for text in texts]
    for one in found:
        assert one.probabilities is not None and sum(one.probabilities.values()) == pytest.approx(1)
        assert one.answer == max(one.probabilities, key=one.probabilities.__getitem__)
    alone = predict(model, prompt(model.fingerprint, ["yes", "no"]), texts[1:])
    assert alone[0].probabilities == pytest.approx(found[1].probabilities, abs=1e-5)


def test_open_answers_are_generated() -> None:
    model = tiny("llama")
    (found,) = predict(model, prompt(model.fingerprint), ["The film was lovely."], max_tokens=3)
    assert found.probabilities is None and isinstance(found.answer, str)


def test_inputs_leave_room_for_the_answer_within_the_models_positions() -> None:
    """Learned positions end: a model with 128 of them has no row for the 129th."""
    model = tiny("gpt2", n_positions=128)
    long = "The film was lovely. " * 100
    told: list[str] = []
    (found,) = predict(model, prompt(model.fingerprint), [long], max_tokens=60, on_message=told.append)
    assert isinstance(found.answer, str) and "longer than 64 tokens" in told[0]  # 128 - 4 of the prompt - 60
    with pytest.raises(DataError, match=r"answer may have 300 tokens.*128 positions"):
        predict(model, prompt(model.fingerprint), ["The film was lovely."], max_tokens=300)


def test_several_columns_need_objects() -> None:
    model = tiny("llama")
    pair = prompt(model.fingerprint, ["yes", "no"], "{{ first }} {{ second }}\nVerdict:")
    assert predict(model, pair, [{"first": "A", "second": "B"}])[0].input == "A B\nVerdict:"
    with pytest.raises(DataError, match="first, second"):
        predict(model, pair, ["A B"])


@pytest.mark.parametrize(
    ("name", "row", "text"),
    [
        (
            "crows_pairs_bias_type",
            {"sentence": "The [MASK] came.", "mask1": "one", "mask2": "other"},
            "The other came.\nTopic:",
        ),
        (
            "stereoset_relation",
            {"context": "A.", "stereotype": "B.", "anti-stereotype": "C."},
            "First: A.\nSecond: C.\nRelation:",
        ),
    ],
)
def test_columns_that_only_the_catalog_has_need_not_be_given(
    name: str, row: dict[str, str], text: str
) -> None:
    model, info = tiny("llama"), task_info(name)
    bundled = prompt(model.fingerprint, ["yes", "no"], info.texts[0], f"bundled:{name}")
    found = predict(model, bundled, [row, row, row | {"number": 1}])
    assert [one.input for one in found[:2]] == [text] * 2  # whatever their place
    assert found[2].input != text
    with pytest.raises(DataError, match="several columns") as told:
        predict(model, bundled, ["A text."])
    assert "number" not in str(told.value)


def test_a_column_called_number_in_ones_own_file_is_asked_for() -> None:
    model = tiny("llama")
    own = prompt(model.fingerprint, ["yes", "no"], "{{ text }} {{ number }}\nVerdict:")
    with pytest.raises(DataError, match="'number' is undefined"):
        predict(model, own, [{"text": "A"}])
    one = prompt(model.fingerprint, ["yes", "no"], "{{ text }} {{ number }}\nVerdict:", "bundled:x")
    assert predict(model, one, ["A"])[0].input == "A 0\nVerdict:"
    assert predict(model, one, [""])[0].answer is None


def test_mistakes() -> None:
    model = tiny("llama")
    with pytest.raises(PromptError):
        predict(model, prompt("another"), ["text"])
    assert predict(model, prompt(model.fingerprint), []) == []


def test_the_longest_label_has_room_behind_a_long_text() -> None:
    model = tiny("gpt2")  # 128 positions, learned: one more is an error
    labels = ["yes", "no maybe " * 10]
    (found,) = predict(model, prompt(model.fingerprint, labels), ["The film was cold. " * 60])
    assert found.probabilities is not None and found.probabilities.keys() == set(labels)


def test_an_empty_row_has_no_answer_and_moves_no_other() -> None:
    model = tiny("llama")
    told: list[str] = []
    rows = ["The film was dull.", " ", {"text": None}, {"text": float("nan")}, "The meal was warm."]
    found = predict(model, prompt(model.fingerprint, ["yes", "no"]), rows, on_message=told.append)
    assert [one.row for one in found] == [1, 2, 3, 4, 5]
    assert [one.answer is None for one in found] == [False, True, True, True, False]
    assert told == ["3 of 5 rows are empty (the first: row 2) and get no answer."]
    alone = predict(model, prompt(model.fingerprint, ["yes", "no"]), rows[-1:])
    assert found[4].probabilities == pytest.approx(alone[0].probabilities, abs=1e-5)


def test_columns_that_are_not_read_do_not_fill_a_row() -> None:
    model = tiny("llama")
    found = predict(model, prompt(model.fingerprint, ["yes", "no"]), [{"text": "", "id": 7}])
    assert found[0].answer is None


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("The film was lovely.", "one text; expected a list"), ({"text": "Fine."}, "one mapping"),
        (["Fine.", None], "Row 2 is None; expected a text"), ([3], "Row 1 is 3; expected a text"),
        (pd.DataFrame({"text": ["Fine."]}), "data frame; expected a list of rows"),
    ],
)  # fmt: skip
def test_rows_of_the_wrong_kind_are_refused(rows: Any, told: str) -> None:
    model = tiny("llama")
    with pytest.raises(DataError, match=told):
        predict(model, prompt(model.fingerprint, ["yes", "no"]), rows)


def test_a_column_or_the_rows_of_a_data_frame_are_answered_as_lists_are() -> None:
    model, frame = tiny("llama"), pd.DataFrame({"text": ["Fine.", "Dull."], "id": [1, 2]})
    own = prompt(model.fingerprint, ["yes", "no"])
    expected = [answer.probabilities for answer in predict(model, own, ["Fine.", "Dull."])]
    for rows in (frame["text"], frame.to_dict("records")):
        assert [answer.probabilities for answer in predict(model, own, rows)] == expected
