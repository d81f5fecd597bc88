"""Which engine runs a model, and what a batch refuses."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from spoton.errors import ModelError
from spoton.models import Batch, FrozenModel, engine_for
from tests.tiny import tiny, tokenizer


@pytest.mark.parametrize("family", ["mpt", "bloom", "falcon_alibi", "falcon", "falcon_new"])
def test_models_that_do_not_fit_are_concatenated(family: str) -> None:
    assert engine_for(tiny(family)).name == "concatenation"


def test_the_choice_is_made_once() -> None:
    model = tiny("llama")
    assert engine_for(model) is engine_for(model)


def test_the_check_leaves_the_model_as_it_was() -> None:
    model = tiny("llama")
    config = model.network.config
    before = config._attn_implementation
    engine_for(model)
    assert config._attn_implementation == before != "spoton_packed"


class _Deaf(PreTrainedModel):
    """A network that takes token ids and nothing else."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.embedding = torch.nn.Embedding(32, 8)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.embedding

    def forward(self, input_ids: torch.Tensor) -> CausalLMOutput:
        return CausalLMOutput(logits=self.embedding(input_ids) @ self.embedding.weight.T)


def test_a_model_without_input_embeddings_is_refused_by_name() -> None:
    model = FrozenModel("deaf", _Deaf(PreTrainedConfig()), tokenizer())
    with pytest.raises(ModelError, match=r"deaf.*does not accept input embeddings"):
        engine_for(model)


@pytest.mark.parametrize("inputs", [[], [[1], []]])
def test_a_batch_without_rows_or_with_an_empty_input_is_refused(inputs: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Batch(inputs, [[2]] * len(inputs))


def test_rows_without_a_prompt_of_their_own_use_the_first() -> None:
    assert Batch([[1], [2]], [[3], [4]]).rows == [0, 0]
