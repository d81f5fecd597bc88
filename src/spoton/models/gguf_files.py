"""GGUF files as ordinary model folders: decoded once, so that later loads take seconds and not minutes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from spoton.errors import ModelError
from spoton.files import expanded, let_others_read

# Beginnings of the names of tensors that scale the frequencies of rotary positions.
_SCALES = ("rope_freqs.", "rope_factors_")


def unpack_gguf(
    file: str | Path, folder: str | Path, *, on_message: Callable[[str], None] | None = None
) -> Path:
    """Decodes a GGUF file into a new folder, which appears complete or not at all, and returns the folder.

    Weights are kept in float32, as transformers decodes them, so the folder has the fingerprint of the file and takes
    its prompts. It takes four bytes a parameter.

    Args:
        file: The GGUF file.
        folder: Where to put the model; it must not exist.
        on_message: Called with progress messages.

    Raises:
        ModelError: The file cannot be read as a model (see also `require_plain_positions`), or the folder exists or
            cannot be written.
    """
    source, target = expanded(str(file)), expanded(str(folder))
    if source.suffix != ".gguf" or not source.is_file():
        raise ModelError(f"{source} is no .gguf file. Other models load from their folder as they are.")
    if target.exists():
        raise ModelError(f"{target} exists already. Choose another folder (--out).")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            if on_message:
                on_message(f"Decoding {source.name} (about a minute for each 300M parameters)")
            require_plain_positions(source)
            unpacked = Path(scratch) / "model"
            decode_gguf(source, unpacked)
            unpacked.rename(target)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{target} could not be written from {source}: {error}. It takes four bytes for each parameter: free some "
            "space, or choose another --out."
        ) from error
    except (ValueError, LookupError, ImportError, TypeError, RuntimeError) as error:
        raise ModelError(f"{source} could not be read as a model: {error}") from error
    return target


def require_plain_positions(file: Path) -> None:
    """Refuses a file whose rotary positions are scaled, which transformers leaves out when it reads the file.

    Llama 3.1 and later keep factors of the frequencies as a tensor, other models (linear, YaRN) numbers among the
    metadata. Without them every text is read wrongly, from its first tokens on.

    Args:
        file: A GGUF file.

    Raises:
        ModelError: It has such factors or numbers.
    """
    from gguf import GGUFReader

    reader = GGUFReader(file)
    architecture = reader.get_field("general.architecture")
    family = architecture.contents() if architecture is not None else ""
    if family == "gpt-oss":  # the one family whose scaling transformers reads
        return
    found = {key: reader.get_field(f"{family}.rope.scaling.{key}") for key in ("type", "factor")}
    kind, factor = (None if field is None else field.contents() for field in found.values())
    tables = [
        tensor.name
        for tensor in reader.tensors
        if tensor.name.startswith(_SCALES) and bool((tensor.data != 1).any())
    ]
    if tables or (kind not in (None, "none") and factor != 1.0):
        told = tables[0] if tables else f"rope.scaling.type {kind}"
        raise ModelError(
            f"{file} has scaled rotary positions ({told}), which transformers does not read from GGUF files, so every "
            "text would be read wrongly. Give the model's own folder or hub id."
        )


def decode_gguf(file: Path, folder: Path) -> None:
    """Decodes a GGUF file into an ordinary model folder with float32 safetensors.

    A model read from GGUF refuses `save_pretrained`. So its config (without the quantization entry) and weights are
    copied into a plain network of the same class.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": file.name, "trust_remote_code": False}
    decoded = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
    config = type(decoded.config).from_dict(
        {key: value for key, value in decoded.config.to_dict().items() if key != "quantization_config"}
    )
    plain = type(decoded)(config)
    plain.load_state_dict(decoded.state_dict())
    plain.save_pretrained(folder)
    let_others_read(folder)
    AutoTokenizer.from_pretrained(file.parent, **options).save_pretrained(folder)
