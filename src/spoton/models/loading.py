"""Loading a frozen model: an embedded one, a Hugging Face checkpoint by id or folder, or a GGUF file.

This file decides where the weights come from, and in which type and on which device they are held. The engines run
prompts through the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from spoton.arguments import require_kind
from spoton.errors import ModelError, first_line
from spoton.files import expanded
from spoton.hub_offline import hub_or_cache
from spoton.models.bundled import list_models, pull_model
from spoton.models.compiled import compile_layers
from spoton.models.frozen import FrozenModel
from spoton.models.gguf_files import require_plain_positions
from spoton.models.soundness import read_weights, require_soundness
from spoton.parsing import parse_json

DEFAULT_MODEL = "smollm2-135m"
# Without this, transformers asks whether to run the code of a model folder, and takes a yes from any stdin.
_NO_CODE: dict[str, Any] = {"trust_remote_code": False}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str | Path = DEFAULT_MODEL,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    revision: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    compile: bool = False,
    on_message: Callable[[str], None] | None = None,
) -> FrozenModel:
    """Loads a pretrained model and freezes it.

    Args:
        name: An embedded model (`smollm2-135m`), a folder, a `.gguf` file or a Hugging Face id, decoder-only or
            encoder-decoder.
        dtype: `float32`, `bfloat16`, `float16` or `auto`: bfloat16 if the hardware computes in it, else
            float32. A type of torch will do, too.
        device: A torch device or `auto`: CUDA if there is one, else the CPU.
        revision: Branch, tag or commit of a Hugging Face id.
        device_map: Passed to transformers, for models that do not fit on one device.
        compile: Compile the layers (`torch.compile`); the first steps take up to a minute or two.
        on_message: Called with progress messages.

    Raises:
        ModelError: The model cannot be found, read, held in that type or compiled; it is a GGUF file that transformers
            would misread (`require_plain_positions`); or the device does not exist.
        DownloadError: An embedded model could not be fetched.

    Examples:
        >>> model = load_model("smollm2-135m")  # doctest: +SKIP
        >>> model.describe()["family"]  # doctest: +SKIP
        'llama'
    """
    require_kind(
        name, (str, Path), "The model", ModelError,
        f"a name, folder, .gguf file or Hugging Face id, such as {DEFAULT_MODEL!r}",
    )  # fmt: skip
    name, tell = str(name), on_message or (lambda message: None)
    place = _choose_device(str(device))
    kind = _choose_dtype(str(dtype).removeprefix("torch."), place)
    source = expanded(name)
    folder: str | Path
    if _is_embedded(name):
        folder, options = pull_model(name, on_message=on_message), dict(_NO_CODE)
    else:
        folder, options = _place(name, revision)
    try:
        with nullcontext() if Path(folder).exists() else hub_or_cache():
            model = _read(name, folder, kind, options, device_map or _whole(place))
    except (OSError, ValueError, LookupError, ImportError, TypeError, RuntimeError, SafetensorError) as error:
        # So many types, since every reader (JSON, safetensors, GGUF, tokenizers) reports damage in its own way.
        raise ModelError(_not_loaded(name, source, error)) from error
    require_soundness(model)
    tell(
        f"{name}: {model.network.num_parameters() / 1e6:.0f}M parameters, {str(kind).removeprefix('torch.')} on {place}"
    )
    if compile:
        compile_layers(model, tell)
    return model


def is_encoder_decoder(name: str) -> bool:
    """Returns whether a model has an encoder and a decoder, from its configuration alone; fetches and reads no weights.

    Args:
        name: As for `load_model`.

    Raises:
        ModelError: The model cannot be found or read.
    """
    if _is_embedded(name):
        return False
    folder, options = _place(name)
    try:
        with nullcontext() if Path(folder).exists() else hub_or_cache():
            return bool(AutoConfig.from_pretrained(folder, **options).is_encoder_decoder)
    except (OSError, ValueError, LookupError, ImportError, TypeError, RuntimeError) as error:
        raise ModelError(_not_loaded(name, expanded(name), error)) from error


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads only the tokenizer of a model.

    Args:
        name: As for `load_model`.

    Raises:
        ModelError: It cannot be found or read.
        DownloadError: An embedded model could not be fetched.
    """
    folder, options = (pull_model(name), _NO_CODE) if _is_embedded(name) else _place(name)
    try:
        with nullcontext() if Path(folder).exists() else hub_or_cache():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, LookupError, ImportError, TypeError, RuntimeError) as error:
        raise ModelError(_not_loaded(name, expanded(name), error)) from error
    return tokenizer


def _is_embedded(name: str) -> bool:
    return name in {info.name for info in list_models()} and not expanded(name).exists()


def _place(name: str, revision: str | None = None) -> tuple[str | Path, dict[str, Any]]:
    """Returns the place of a model that is not embedded, and the options for transformers to read it."""
    source = expanded(name)
    if source.suffix == ".gguf" and source.is_file():
        return source.parent, {"gguf_file": source.name, **_NO_CODE}
    if source.exists() and not source.is_dir() and not source.is_file():
        raise ModelError(
            f"{source} is neither a folder nor a file. Expected a folder with config.json or a .gguf file."
        )
    return source if source.exists() else name, {"revision": revision, **_NO_CODE}


def _whole(place: torch.device) -> dict[str, Any] | None:
    """Returns the device map that loads all weights straight to one device; None for the CPU, the default place."""
    return None if place.type == "cpu" else {"": place}


def _read(
    name: str, folder: str | Path, kind: torch.dtype, options: dict[str, Any], device_map: Any
) -> FrozenModel:
    """Reads config, tokenizer and weights; code that comes with a model is never run."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    options = {**options, "trust_remote_code": False}
    if "gguf_file" in options:
        require_plain_positions(Path(folder) / options["gguf_file"])
    config = AutoConfig.from_pretrained(folder, **options)
    if config.is_encoder_decoder and config.model_type in ("t5", "mt5", "umt5") and kind == torch.float16:
        raise ModelError(
            f"{name} overflows in float16 (T5 was trained in bfloat16). Use --dtype bfloat16 or float32."
        )
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    placed = options if device_map is None else {**options, "device_map": device_map}
    with _quiet():  # `read_weights` raises its own error for missing weights
        network = read_weights(name, auto, folder, {**placed, "dtype": kind})
    return FrozenModel(name, network, AutoTokenizer.from_pretrained(folder, **options))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences transformers' warnings inside the block."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _choose_device(device: str) -> torch.device:
    """Returns the device for the weights; refuses a missing device before anything is downloaded."""
    there = ["cpu"]
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is not None:
        places = range(torch.accelerator.device_count())
        there += [accelerator.type, *(f"{accelerator.type}:{place}" for place in places)]
    if device not in ("auto", *there):
        raise ModelError(
            f"There is no device {device!r}; there is: auto, {', '.join(there)}. Choose one of these (--device)."
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Returns the type for the weights; `auto` depends on whether the hardware multiplies in bfloat16."""
    if dtype != "auto":
        if dtype not in _DTYPES:
            raise ModelError(f"Unknown dtype {dtype!r}; there is: auto, {', '.join(_DTYPES)}.")
        return _DTYPES[dtype]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        abilities = torch.cpu.get_capabilities()
        fast = bool(abilities.get("amx_bf16") or abilities.get("avx512_bf16") or abilities.get("bf16"))
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def _not_loaded(name: str, source: Path, error: Exception) -> str:
    """Returns the message for a model that did not load."""
    reason = first_line(error).rstrip(".")
    if _brings_code(source):
        return (
            f"{source} needs code that comes with it (auto_map in its config.json), and spoton runs no code of a "
            "model. Use a model of an architecture that transformers has itself."
        )
    if source.exists():
        return f"{source} could not be read as a model: {reason}. Expected a folder with config.json or a .gguf file."
    known = ", ".join(info.name for info in list_models())
    return (
        f"No model {name!r} here, and it could not be fetched from the Hugging Face hub: {reason}. "
        f"Give a folder, a .gguf file, a hub id, or an embedded model ({known})."
    )


def _brings_code(folder: Path) -> bool:
    """Returns whether a model's config asks for Python code that comes with it."""
    try:
        config = parse_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "auto_map" in config


def parameters_of(config: PreTrainedConfig) -> int:
    """Returns how many weights a model of a configuration has, without downloading or allocating anything.

    Examples:
        >>> from transformers import GPT2Config
        >>> parameters_of(GPT2Config())
        124439808
    """
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        network: PreTrainedModel = auto.from_config(config)  # type: ignore[no-untyped-call]  # transformers' own
    found = sum(weight.numel() for weight in network.parameters())
    own: Any = network.get_output_embeddings()  # type: ignore[no-untyped-call]
    is_tied = own.weight is network.get_input_embeddings().weight
    if is_tied and getattr(config, "scale_decoder_outputs", True) is False:
        # T5 v1.1 has its own output matrix, but transformers ties it until it reads a checkpoint with both.
        found += own.weight.numel()
    return found
