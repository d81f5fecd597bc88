"""A prompt library: a folder of prompt files, safe to share between processes.

The folder is the library, and listing it reads the head of each file. A file gets its name in one step and never
changes afterwards, so no lock is needed. From `INDEXED_FROM` prompts on, heads come from an index in the cache folder
(`index.py`), which is derived from the files and rebuilt if it is missing or damaged.

The library stores prompts and finds them by their cards. It does not compare them: `spoton.transfer` computes
similarity and retrieves.
"""

import difflib
import importlib.resources
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace as changed
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from spoton.arguments import require_kind
from spoton.errors import LibraryError, PromptError, PromptNotFoundError
from spoton.files import atomic_write, expanded, has_home
from spoton.prompts.index import LibraryIndex
from spoton.prompts.listing import Entry, Listing, Verification, read_entry
from spoton.prompts.soft_prompt import SoftPrompt
from spoton.prompts.urls import local_folder
from spoton.reading import reason

if TYPE_CHECKING:
    from spoton.prompts.remote_folder import RemoteFolder

SUFFIX = ".safetensors"
# From this many prompts on, the heads are in an index; reading fewer takes less than half a second.
INDEXED_FROM = 500
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")
_NAME_RULE = "expected lower-case letters, digits, '.', '_' and '-', a letter or digit first, 200 at most"

Entries = list[Entry]  # inside the class below, `list` is the method


def _allowed(name: str) -> str:
    """Returns an allowed name that is like another one."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", plain).strip("._-")[:200] or "prompt"


class PromptLibrary:
    """A folder of prompt files, `<name>.safetensors` each. The folder appears with the first prompt.

    It is a path, or the URL of any file system that fsspec knows, such as `hf://owner/name`. Then it is mirrored,
    and every method updates the mirror first.

    Attributes:
        folder: The folder of the files.
        remote: The remote folder that `folder` mirrors; None for a library on this machine.
        readonly: Whether `add` and `remove` are refused.
        damaged: Reason by name, for the files that the last `list` or `search` skipped.

    Raises:
        LibraryError: `folder` is a file; fsspec does not know such a URL, or its driver is not installed.

    Examples:
        >>> library = PromptLibrary("my-prompts")
        >>> _ = library.add(prompt, name="news")
        >>> [entry.name for entry in library.search("news")]
        ['news']
        >>> PromptLibrary("memory://team/prompts").list()
        []
    """

    def __init__(self, folder: Path | str, readonly: bool = False) -> None:
        local = local_folder(folder)
        self.remote: RemoteFolder | None = None
        if local is None:
            self.remote = _remote_folder(str(folder))
            local = self.remote.mirror
        self.folder = local
        self.readonly = readonly
        self.damaged: dict[str, str] = {}
        if self.folder.is_file():
            raise LibraryError(f"{self.folder} is a file; expected the folder of a library. Give its folder.")

    @property
    def place(self) -> str:
        """The location of the library, as a user names it: its folder or URL."""
        return str(self.folder) if self.remote is None else self.remote.url

    def add(self, prompt: SoftPrompt, *, name: str | None = None, replace: bool = False) -> Path:
        """Saves a prompt in the library. Its card takes its name in the library.

        Any number of processes may add at once: each file appears complete, and of several that want one name exactly
        one gets it; behind a URL the later one wins, since remote stores have no such step.

        Args:
            prompt: The prompt.
            name: Lower-case letters, digits, dots, underscores and dashes; by default the name on the card.
            replace: Whether a prompt of that name may be replaced.

        Returns:
            The file written.

        Raises:
            LibraryError: The prompt is not loaded, its name is malformed or taken, or the library is read-only or
                cannot be reached.
            SpotonError: The folder is not writable, or the disk is full.
        """
        require_kind(
            prompt, SoftPrompt, "prompt", LibraryError, "a soft prompt. Load it first: spoton.SoftPrompt.load(file)"
        )  # fmt: skip
        self._require_writable()
        if name is None:
            name = prompt.card.name
            if not _NAME.fullmatch(
                name
            ):  # the task's own name, which may be any text, such as that of a file
                raise LibraryError(
                    f"The prompt is called {name!r}, which cannot be its name here; {_NAME_RULE}. Give it another: "
                    f"--name {_allowed(name)}"
                )
        path = self.path(name)
        content = changed(prompt, card=prompt.card.model_copy(update={"name": name})).to_bytes()
        try:
            if self.remote is None:
                atomic_write(path, content, overwrite=replace)
            else:
                self.remote.write(path.name, content, overwrite=replace)
        except FileExistsError as error:
            raise LibraryError(
                f"The library {self.place} already has a prompt {name!r}. "
                "Choose another name, remove it first, or replace it (--replace; in Python replace=True)."
            ) from error
        return path

    def get(self, name: str) -> SoftPrompt:
        """Loads one prompt.

        Raises:
            LibraryError: There is no such prompt; the message names the nearest.
            PromptError: Its file is damaged.
        """
        self.refresh()
        try:
            return SoftPrompt.load(self.path(name))
        except PromptNotFoundError as error:
            raise self._unknown(name) from error

    def path(self, name: str) -> Path:
        """Returns the file of a prompt, whether or not it exists.

        Raises:
            LibraryError: The name is malformed.
        """
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise LibraryError(f"{name!r} cannot be a prompt's name; {_NAME_RULE}. Give such a name.")
        return self.folder / f"{name}{SUFFIX}"

    def refresh(self) -> None:
        """Updates the mirror of a library behind a URL; does nothing for others.

        Raises:
            LibraryError: It cannot be reached, or needs credentials.
        """
        if self.remote is not None:
            self.remote.refresh()

    def list(self) -> Listing:
        """Returns all prompts, sorted by name. Damaged and badly named files are skipped and listed in its
        `damaged`."""
        entries: Entries = []
        stems = self._stems()
        names = [stem for stem in stems if _NAME.fullmatch(stem)]
        damaged = {} if len(names) == len(stems) else self._badly_named(stems)
        if len(names) >= INDEXED_FROM:
            listing = self._indexed(names)
            listing.damaged |= damaged
            self.damaged = listing.damaged
            return listing
        for path in map(self.path, names):
            try:
                entries.append(read_entry(path))
            except PromptNotFoundError:
                continue  # removed by another process after the folder was read
            except PromptError as error:
                damaged[path.stem] = str(error)
        self.damaged = damaged
        return Listing(entries, damaged)

    @cached_property
    def index(self) -> LibraryIndex:
        """The index derived from the files of a large library."""
        return LibraryIndex(self.folder)

    def _indexed(self, names: Sequence[str]) -> Listing:
        """Returns the prompts from the index, after updating it."""
        # Joined as text, which takes a tenth of the time for a hundred thousand paths.
        folder = f"{self.folder}{os.sep}"
        files = {name: f"{folder}{name}{SUFFIX}" for name in names}
        heads = self.index.heads(files)
        entries = [
            Entry(h.name, files[h.name], h.length, h.dim, bool(h.has_key), h.size, h.card, h)
            for h in heads
            if not h.damage
        ]
        return Listing(entries, {head.name: head.damage for head in heads if head.damage})

    def search(
        self,
        text: str = "",
        family: str | None = None,
        task: str | None = None,
        model_fingerprint: str | None = None,
    ) -> Entries:
        """Returns the prompts that meet every condition given.

        Args:
            text: Words that must all occur, in any case, in the name, task, family, labels, source or notes.
            family: Exact task family.
            task: Exact task name.
            model_fingerprint: Exact fingerprint of the frozen model.
        """
        words = text.lower().split()
        return [
            entry
            for entry in self.list()
            if family in (None, entry.card.family)
            and task in (None, entry.card.task)
            and model_fingerprint in (None, entry.card.model_fingerprint)
            and all(word in entry.searchable for word in words)
        ]

    def verify(self) -> Verification:
        """Reads every file in full and verifies its checksum; checks names too."""
        stems = self._stems()
        found = Verification(ok=[], damaged=self._badly_named(stems))
        for path in (self.path(stem) for stem in stems if stem not in found.damaged):
            try:
                SoftPrompt.load(path)
            except PromptNotFoundError:
                continue  # removed by another process after the folder was read
            except PromptError as error:
                found.damaged[path.stem] = str(error)
            else:
                found.ok.append(path.stem)
        return found

    def remove(self, name: str) -> None:
        """Deletes one prompt, damaged or not.

        Raises:
            LibraryError: There is no such prompt, or the library is read-only, not writable or cannot be reached.
        """
        self._require_writable()
        path = self.path(name)
        try:
            if self.remote is None:
                path.unlink()
            else:
                self.remote.remove(path.name)
        except FileNotFoundError as error:
            raise self._unknown(name) from error
        except OSError as error:
            raise LibraryError(
                f"Cannot remove {name!r} from {self.place}: {error.strerror}. Check its permissions."
            ) from error

    def _stems(self) -> Sequence[str]:
        """Returns the names of all prompt files, valid or not, sorted.

        Raises:
            LibraryError: The folder cannot be read.
        """
        self.refresh()
        try:
            names = os.listdir(self.folder)  # noqa: PTH208  # 100,000 names in a tenth of the time of paths
        except (FileNotFoundError, NotADirectoryError):
            return []  # it appears with the first prompt
        except OSError as error:
            raise LibraryError(
                f"Cannot read the library {self.place}: {reason(error)}. Check its permissions."
            ) from error
        return sorted(
            name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and not name.startswith(".")
        )

    def _badly_named(self, stems: Iterable[str]) -> dict[str, str]:
        """Returns the reason by name, for the files that no valid name refers to."""
        return {
            stem: f"{stem!r} cannot be a prompt's name; {_NAME_RULE}. Rename the file."
            for stem in stems
            if not _NAME.fullmatch(stem)
        }

    def _require_writable(self) -> None:
        if self.readonly:
            raise LibraryError(
                f"The library {self.place} is read-only. "
                f"Use a library of your own, such as {default_library_path()}."
            )

    def _unknown(self, name: str) -> LibraryError:
        names = [stem for stem in self._stems() if _NAME.fullmatch(stem)]
        near = difflib.get_close_matches(name, names, n=3) or names[:10]
        hint = f"Did you mean {', '.join(near)}?" if near else "It is empty: add a prompt first."
        return LibraryError(f"The library {self.place} has no prompt {name!r}. {hint}")


def _remote_folder(url: str) -> "RemoteFolder":
    from spoton.prompts.remote_folder import RemoteFolder  # its drivers are for URLs only

    return RemoteFolder(url, SUFFIX)


def starter_library() -> PromptLibrary:
    """Returns the prompts that come with spoton, for its default model. Read-only."""
    folder = importlib.resources.files("spoton") / "prompts" / "starter"
    return PromptLibrary(Path(str(folder)), readonly=True)


def default_library_path() -> Path:
    """Returns the folder of a user's prompts: `$SPOTON_LIBRARY`, else `library` in the user's data folder.

    Raises:
        LibraryError: `$SPOTON_LIBRARY` is a URL, or neither is known, since the user has no home folder.
    """
    chosen = os.environ.get("SPOTON_LIBRARY")
    if chosen:
        if (folder := local_folder(chosen)) is None:
            raise LibraryError(f"SPOTON_LIBRARY is {chosen}; expected a folder. Give a URL with --library.")
        return expanded(str(folder))
    if not has_home():
        raise LibraryError(
            "This user has no home folder, so there is no place for a library. Set HOME, set SPOTON_LIBRARY to a "
            "folder, or give --library."
        )
    return platformdirs.user_data_path("spoton") / "library"
