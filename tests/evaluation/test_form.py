"""Which form a model reads, and whether its label words are words to it."""

import pytest

from spoton.errors import DownloadError, ModelError
from spoton.evaluation.form import form_for, form_of
from spoton.models import FrozenModel, load_model
from spoton.models.loading import is_encoder_decoder
from spoton.prompts.card import Card
from spoton.tasks import list_tasks
from tests.tiny import tiny

# Label words that are several tokens to SmolLM2, and why they are kept: no common word says the same.
LONG = {"annoyance", "disapproval"}
# Tasks whose labels are numbers, which its tokenizer takes digit by digit.
NUMBERS = {"stsb", "cxc"}


def card(form: str) -> Card:
    return Card(name="a", task="mnli", model="m", model_fingerprint="f", form=form)


def test_the_form_follows_the_kind_of_model() -> None:
    assert form_for(tiny("llama")) == "natural" and form_for(tiny("t5_v1_1")) == "t5"


def test_a_prompt_has_the_form_that_it_was_tuned_in() -> None:
    assert form_of(card("natural")) == "natural" and form_of(card("t5")) == "t5"
    assert form_of(card("")) == "t5", "a card from before there were two"


@pytest.mark.parametrize("family", ["llama", "t5_v1_1"])
def test_the_kind_of_a_model_is_known_without_its_weights(family: str, tmp_path: object) -> None:
    model = tiny(family)
    model.network.config.save_pretrained(str(tmp_path))
    assert is_encoder_decoder(str(tmp_path)) is model.is_encoder_decoder


def test_the_kind_of_a_model_that_is_not_there(tmp_path: object) -> None:
    assert is_encoder_decoder("smollm2-135m") is False
    with pytest.raises(ModelError, match="could not be read as a model"):
        is_encoder_decoder(str(tmp_path))


@pytest.fixture(scope="module")
def smollm2() -> FrozenModel:
    try:
        return load_model("smollm2-135m")
    except DownloadError as error:
        pytest.skip(f"offline, and the embedded model is not in the cache: {error}")


@pytest.mark.network
def test_label_words_are_single_tokens(smollm2: FrozenModel) -> None:
    """Of the natural forms, as they stand behind `Answer:`."""
    long = {
        (info.name, word)
        for info in list_tasks()
        for word in info.in_form("natural").labels or ()
        if len(smollm2.encode_target(word, end=False)) > 1
    }
    assert {word for name, word in long if name not in NUMBERS} == LONG
    assert {name for name, word in long if word not in LONG} == NUMBERS
    # What is counted above is what stands there.
    joined = smollm2.encode_input("Answer: Yes")
    assert joined == [*smollm2.encode_input("Answer:"), *smollm2.encode_target("Yes", end=False)]
