"""The parameters of model tuning: all weights of a float32 copy of the model, and the best of them so far."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from spoton.models.choose_engine import engine_for
from spoton.models.frozen import FrozenModel
from spoton.tuning.full_model.recipe import ModelRecipe


class WeightsLearner:
    """All weights of a copy of a model; see `Learner`.

    Args:
        model: The model to start from; it does not change.
        recipe: How to tune.
        identity: Hash of everything that decides the run; it gives the result its own fingerprint.

    Attributes:
        weights: By name in the network.
        best: The best weights by validation so far; empty before the first evaluation.
    """

    def __init__(self, model: FrozenModel, recipe: ModelRecipe, identity: str) -> None:
        self.model = _unfrozen_copy(model, identity)
        self.weights: dict[str, Tensor] = dict(self.model.network.named_parameters())
        self.parameters = list(self.weights.values())
        self.rate, self.scaled = recipe.learning_rate, True
        self.best: dict[str, Tensor] = {}
        self._no_prompt = torch.zeros(0, model.dim, device=model.device)

    def prompt(self) -> Tensor:
        """See `Learner.prompt`: an empty prompt, `[0, D]`."""
        return self._no_prompt

    def candidates(self) -> dict[str, Tensor]:
        """See `Learner.candidates`: no prompt, `[0, D]`, with the current weights."""
        return {"last": self._no_prompt}

    def stepped(self, step: int) -> None:
        """See `Learner.stepped`."""

    def keep(self, candidate: str) -> None:
        """See `Learner.keep`."""
        self.best = copied(self.weights)

    @torch.no_grad()
    def frozen(self, name: str) -> FrozenModel:
        """Returns the model with its best weights, frozen again.

        Args:
            name: Name of the model.
        """
        for place, weight in self.weights.items():
            weight.copy_(self.best[place])
            weight.grad = None
        return FrozenModel(name, self.model.network, self.model.tokenizer)


def is_tuned(model: FrozenModel) -> bool:
    """Returns whether the weights come from model tuning, as when multi-task model tuning precedes the target."""
    return getattr(model.network.config.get_text_config(), "spoton_tuned", None) is not None


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies of weights `[...]` by name, which later steps do not change."""
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _unfrozen_copy(model: FrozenModel, identity: str) -> FrozenModel:
    """Returns a float32 copy whose weights need gradients."""
    network = copy.deepcopy(model.network).to(torch.float32)  # type: ignore[arg-type]  # transformers wraps it
    if hasattr(network, "hf_quantizer"):  # read from a GGUF file: decoded, but it would refuse to be saved
        del network.hf_quantizer
        del network.config.quantization_config
        network.is_quantized = False
    network.config.get_text_config().spoton_tuned = identity
    unfrozen = FrozenModel(model.name, network, model.tokenizer)
    engine_for(unfrozen)  # chosen while no weight needs a gradient
    network.requires_grad_(True)
    return unfrozen
