"""Which engine runs a model: decided once per model, by a check on real numbers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from spoton.errors import ModelError
from spoton.models.concatenation import ConcatenationEngine
from spoton.models.encoder_decoder import EncoderDecoderEngine, T5Engine
from spoton.models.engine import Engine
from spoton.models.exactness import check_rows, tolerance_of
from spoton.models.frozen import FrozenModel
from spoton.models.llama_layers import runs_by_hand
from spoton.models.packed_decoder import PackedEngine


def engine_for(model: FrozenModel) -> Engine:
    """The fastest engine that is exact for ``model``.

    Encoder-decoder models read the prompt in front of the encoder's input; those of the T5 family run without padding.
    Decoder-only models run packed, each prompt once for all rows. Both only if a short check shows the same numbers as
    the plain way; otherwise (sliding window, recurrent state, ALiBi, ...) decoder-only models concatenate.

    Raises:
        ModelError: The model takes no input embeddings, so no prompt can be put before them.
    """
    engine = model.derived.get("engine")
    if engine is None:
        plain: Engine
        faster: list[Engine]
        if model.is_encoder_decoder:
            plain, faster = EncoderDecoderEngine(model), [T5Engine(model)] if T5Engine.fits(model) else []
        else:
            plain, faster = ConcatenationEngine(model), [PackedEngine(model)]
            if runs_by_hand(model):
                faster.insert(0, PackedEngine(model, by_hand=True))
        engine = next((engine for engine in faster if _agree(engine, plain, model)), plain)
        model.derived["engine"] = engine
    return cast(Engine, engine)


# Texts of unlike lengths, so that packing, positions and masks all matter for the result.
_CHECK_LENGTHS = ((5, 2), (1, 1), (9, 3))


def _agree(fast: Engine, plain: Engine, model: FrozenModel) -> bool:
    """Whether two engines give the same losses and label scores on a few random rows with two prompts."""
    prompts, batch = check_rows(model, _CHECK_LENGTHS)
    labels = batch.targets

    def numbers(engine: Engine) -> Tensor:
        """Losses and label scores of the rows."""
        return torch.cat([engine.losses(prompts, batch), engine.scorer(prompts)(batch, labels).flatten()])

    try:
        with torch.no_grad():
            expected = numbers(plain)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ModelError(
            f"{model.name} ({model.network.config.model_type}) does not accept input embeddings, so a soft prompt "
            f"cannot be put before its text: {error}"
        ) from error
    try:
        with torch.no_grad():
            found = numbers(fast)
    except Exception:  # whatever an unknown architecture raises, it means: not this way
        return False
    tolerance = tolerance_of(model)
    return bool(torch.allclose(found, expected, rtol=tolerance, atol=tolerance))
