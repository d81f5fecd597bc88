"""The choice of an engine for a model: made once per model, by numerical checks, and kept with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from spoton.errors import ModelError
from spoton.models.concatenation import ConcatenationEngine
from spoton.models.encoder_decoder import EncoderDecoderEngine, T5Engine
from spoton.models.engine import Choice, Engine
from spoton.models.exactness import LONG, SHORT, difference, numbers, small_copy, tolerance_of
from spoton.models.frozen import FrozenModel
from spoton.models.fused_decoder import FusedEngine
from spoton.models.fused_layers import can_fuse
from spoton.models.llama_layers import runs_by_hand
from spoton.models.packed_decoder import PackedEngine

_Make = Callable[[FrozenModel], Engine]


def engine_for(model: FrozenModel) -> Engine:
    """Returns the fastest engine that is exact for `model`.

    Encoder-decoder models read the prompt before the encoder's input; those of the T5 family run without padding.
    Decoder-only models run packed, each prompt once for all rows. Both need checks to show the same numbers as the
    plain engine (`exactness.py`); otherwise (recurrent state, ALiBi, ...) decoder-only models concatenate.
    `engine.choice` holds the engine's name and the reason.

    Raises:
        ModelError: The model takes no input embeddings, so no prompt can precede them; or it is split over several
            devices and cannot run packed there.
    """
    engine = model.derived.get("engine")
    if engine is None:
        engine = model.derived["engine"] = _chosen(model)
    return cast(Engine, engine)


def _chosen(model: FrozenModel) -> Engine:
    try:
        plain: Engine = (
            EncoderDecoderEngine(model) if model.is_encoder_decoder else ConcatenationEngine(model)
        )
        expected = numbers(plain, model, SHORT)
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{model.name} ({model.network.config.model_type}) does not accept input embeddings, so a soft prompt "
            f"cannot be put before its text: {error}"
        ) from error
    reasons = []
    for name, make in _faster(model).items():
        small = _checked_in_small(name, make, type(plain), model)
        engine = make(model)
        reason = small.reason or _unlike(engine, model, expected, plain, is_vouched_for=small.ran)
        if not reason:
            reasons.append(f"{name}: losses, scores and gradients are those of {plain.name}")
            engine.choice = Choice(name, "; ".join(reasons))
            return engine
        reasons.append(f"not {name}: {reason}")
    devices = {str(place) for place in (getattr(model.network, "hf_device_map", None) or {}).values()}
    if len(devices) > 1 and not model.is_encoder_decoder:
        raise ModelError(
            f"{model.name} lies on several devices ({', '.join(sorted(devices))}) and cannot be run packed there: "
            f"{'; '.join(reasons)}. Load it to one device (--device), or choose a smaller model."
        )
    plain.choice = Choice(plain.name, "; ".join(reasons) or "the only engine for models of its kind")
    return plain


def _faster(model: FrozenModel) -> dict[str, _Make]:
    """Returns the engines that may be faster than the plain one, fastest first."""
    on_processor = model.device.type == "cpu"
    if model.is_encoder_decoder:
        return {"t5": T5Engine} if on_processor and T5Engine.fits(model) else {}
    by_hand: dict[str, _Make] = {"packed, layers by hand": lambda one: PackedEngine(one, by_hand=True)}
    packed: dict[str, _Make] = {"packed": PackedEngine}
    # On a GPU, the many small operators of layers by hand cost more than they save; the fused ones are few.
    if on_processor:
        return by_hand | packed if runs_by_hand(model) else packed
    return {"packed, fused": FusedEngine} | packed if can_fuse(model) else packed


def _unlike(
    fast: Engine, model: FrozenModel, expected: dict[str, Tensor], plain: Engine, *, is_vouched_for: bool
) -> str:
    """Returns why an engine is not exact on the model; an empty string if it is.

    In a type of 16 bits, some models (Gemma 3) turn the rounding of a prompt into most of its gradient; there, the
    plain engine is no closer to float32 than the fast one. If a float32 copy vouches for the architecture, the engines
    may differ by what such rounding does to the plain one.
    """
    try:
        found = numbers(fast, model, SHORT)
        reason = difference(found, expected, tolerance_of(model))
        if not reason or model.dtype == torch.float32 or not is_vouched_for:
            return reason
        return difference(found, expected, tolerance_of(model), numbers(plain, model, SHORT, moved=True))
    except Exception as error:  # an unknown architecture may raise anything; the engine does not fit it
        return _told(error)


@dataclass(frozen=True)
class _InSmall:
    """What the check on a small float32 copy of a model found.

    Attributes:
        ran: Whether there was a copy on which the plain engine ran.
        reason: Why the engine is not exact there; empty if it is, or if the check did not run.
    """

    ran: bool
    reason: str = ""


def _checked_in_small(name: str, make: _Make, plain: type, model: FrozenModel) -> _InSmall:
    """Checks an engine on a small copy; once for each class and config."""
    if model.is_encoder_decoder:
        return _InSmall(ran=False)
    config = model.network.config.to_dict()
    key = (name, type(model.network), json.dumps(config, sort_keys=True, default=str))
    if key not in _IN_SMALL:
        small = small_copy(model)
        _IN_SMALL[key] = _InSmall(ran=False) if small is None else _compared_in_small(make, plain, small)
    return _IN_SMALL[key]


def _compared_in_small(make: _Make, plain: type, small: FrozenModel) -> _InSmall:
    for lengths in (SHORT, LONG):
        try:
            expected = numbers(plain(small), small, lengths)
        except Exception:  # the copy fails, not the model: the model itself ran
            return _InSmall(ran=False)
        try:
            reason = difference(numbers(make(small), small, lengths), expected, tolerance_of(small))
        except Exception as error:
            reason = _told(error)
        if reason:
            longest = max(n + m for n, m in lengths)
            return _InSmall(ran=True, reason=f"in float32, {reason} (rows of up to {longest} tokens)")
    return _InSmall(ran=True)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


# Results of the check on a small copy, which depend on class and config alone.
_IN_SMALL: dict[tuple[str, type, str], _InSmall] = {}
