"""Loads tasks from files that are too large to hold as objects; `load_files` decides which are.

The first call reads every row and keeps a store of them in the cache folder, which takes minutes for millions of rows.
Later calls check the files' modification times and open the store.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from spoton.files import atomic_write, cache_folder, sha256_of_file, sha256_of_text, writing
from spoton.tasks.checks import oddities
from spoton.tasks.columns import Columns
from spoton.tasks.data_spec import DataSpec
from spoton.tasks.splits import AT_MOST
from spoton.tasks.stored.index import target_facts, word_counts, write_store
from spoton.tasks.stored.rows import RowNumbers, StoredRows
from spoton.tasks.stored.split import divide, shared_with
from spoton.tasks.stored.store import RowStore, save_whole
from spoton.tasks.stored.stream import RowStream, row_stream
from spoton.tasks.tabular import described, held_out, shared_inputs
from spoton.tasks.targets import labels_of, metrics_of, require_labels, require_several
from spoton.tasks.task import Task

_FORMAT = 1
_RULE = 2
"""Which rule divided the rows of kept splits: 2 keeps rows of labels with repeated texts in train."""
_SPLITS = ("train", "validation", "test")


def load_stored(
    files: Mapping[str, Sequence[Path]],
    spec: DataSpec,
    *,
    name: str,
    source: str,
    on_message: Callable[[str], None] | None = None,
) -> Task | None:
    """Returns the task of large files; None if one of them can only be read as a whole.

    Args:
        files: Files of `train` and, where given, `validation` and `test`.
        spec: How to read them.
        name: Name of the task.
        source: Text before the training files' hash in the task's source.
        on_message: Called when the rows must be read.

    Raises:
        DataError: As in `task_from_rows`.
        SpotonError: The cache folder has no room.
    """
    streams: dict[str, RowStream] = {}
    for split, parts in files.items():
        stream = row_stream(parts, spec.encoding, spec.delimiter)
        if stream is None:
            return None
        streams[split] = stream
    closed = spec.labels not in (None, "none")
    reading = [spec.input, spec.target, spec.template, spec.encoding, spec.delimiter, closed, _FORMAT]
    places = {split: [str(part.resolve()) for part in parts] for split, parts in files.items()}
    folder = cache_folder() / "rows" / sha256_of_text([json.dumps([places, reading])])[:16]
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        wanted = {
            "input": spec.input, "target": spec.target, "template": spec.template, "closed": closed,
            "stamps": [_stamp(part) for parts in files.values() for part in parts],
        }  # fmt: skip
        store = _kept(folder, wanted["stamps"])
        if store is None:
            _tell(on_message, files)
            store = _made(folder, streams, wanted, files["train"])
        return _task(store, spec, name, source)


def _kept(folder: Path, stamps: object) -> RowStore | None:
    """Returns the store of these files in their present state; None if it is missing or damaged."""
    try:
        store = RowStore(folder)
        is_whole = store.facts["stamps"] == stamps and len(store) == store.facts["rows"]
    except (OSError, ValueError, KeyError):
        return None
    return store if is_whole else None


def _made(
    folder: Path, streams: Mapping[str, RowStream], wanted: dict[str, Any], train: Sequence[Path]
) -> RowStore:
    """Makes the store; it gets its final name once it is whole."""
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    with writing(making):
        making.mkdir()
    try:
        write_store(making, streams, wanted)
        content = sha256_of_text(sha256_of_file(part) for part in train)[:12]
        with writing(folder):
            (making / "content").write_text(content, encoding="utf-8")
            making.replace(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return RowStore(folder)


def _task(store: RowStore, spec: DataSpec, name: str, source: str) -> Task:
    facts, columns = store.facts, _columns(store)
    targets = target_facts(facts)
    labels, reason = labels_of(targets, spec.labels, spec.metrics)
    notes = [*facts["notes"], *([reason] if reason else [])]
    if store.codes is not None:
        counts = word_counts(facts, store.codes)
        if spec.hold_out:
            require_several(counts, columns.target)
        require_labels(counts, labels, columns.target)
    splits = _splits(store, labels, spec)
    train, validation, test = (StoredRows(store, rows) for rows in splits)
    task = described(
        (train, validation, test), columns, labels,
        spec.metrics if spec.metrics is not None else metrics_of(targets, labels),
        spec, name, f"{source}@{(store.folder / 'content').read_text(encoding='utf-8')}",
    )  # fmt: skip
    return replace(task, notes=(*notes, *_more_notes(task, store, splits, labels, spec)))


def _splits(
    store: RowStore, labels: tuple[str, ...] | None, spec: DataSpec
) -> tuple[RowNumbers, RowNumbers, RowNumbers]:
    """Returns the rows of train, validation and test; each way to divide them is computed once."""
    path = store.folder / f"splits-{_way(labels, spec)}.npz"
    if path.is_file():
        with np.load(path) as kept:
            return kept["train"], kept["validation"], kept["test"]
    given, start = dict[str, RowNumbers](), 0
    for split, count in store.facts["splits"].items():
        given[split] = np.arange(start, start + count, dtype=np.uint32)
        start += count
    held = held_out(given)
    rows = [given.get(split, np.zeros(0, dtype=np.uint32)) for split in _SPLITS]
    if any(held) and spec.hold_out:
        carved = divide(
            store, rows[0], labels=labels, fractions=(1 - sum(held), held[0], held[1]), at_most=AT_MOST,
            seed=spec.split_seed,
        )  # fmt: skip
        rows = [carved[0], *(rows[n] if len(rows[n]) else carved[n] for n in (1, 2))]
    save_whole(path, lambda file: np.savez(file, train=rows[0], validation=rows[1], test=rows[2]))
    return rows[0], rows[1], rows[2]


def _more_notes(
    task: Task, store: RowStore, splits: Sequence[RowNumbers], labels: tuple[str, ...] | None, spec: DataSpec
) -> list[str]:
    """Returns notes on the splits; computed once for each way to divide the rows."""
    path = store.folder / f"notes-{_way(labels, spec)}.json"
    if path.is_file():
        notes: list[str] = json.loads(path.read_text(encoding="utf-8"))
        return notes
    notes = []
    for split, rows in zip(_SPLITS[1:], splits[1:], strict=True):
        if split in store.facts["splits"] and (
            shared := shared_with(store, rows, splits[0], spec.split_seed)
        ):
            notes.append(shared_inputs(shared, len(rows), split))
    notes += oddities(task) if spec.hold_out else ()
    atomic_write(path, json.dumps(notes).encode())
    return notes


def _way(labels: tuple[str, ...] | None, spec: DataSpec) -> str:
    return sha256_of_text([json.dumps([_RULE, labels, spec.hold_out, spec.split_seed])])[:16]


def _columns(store: RowStore) -> Columns:
    kept = store.facts["columns"]
    return Columns(kept["template"], kept["target"], kept["input"], tuple(kept["notes"]))


def _stamp(path: Path) -> list[int]:
    """Returns the size, modification time and inode of a file."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ino]


def _tell(on_message: Callable[[str], None] | None, files: Mapping[str, Sequence[Path]]) -> None:
    if on_message:
        size = sum(part.stat().st_size for parts in files.values() for part in parts)
        on_message(
            f"The rows ({size / 1e9:.1f} GB) are read and kept in the cache folder once; later calls start from there."
        )
