"""Tasks from Hugging Face data sets, through `datasets`.

Finds the splits and class names of a data set. `tabular` interprets its columns, or `render` for catalog tasks.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spoton.errors import DataError, DownloadError
from spoton.tasks.columns import TARGET_NAMES
from spoton.tasks.data_spec import DataSpec
from spoton.tasks.tabular import task_from_rows
from spoton.tasks.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

STREAMED_ROWS = 100_000
"""Default number of rows to take from a streamed split. Not measured: at the paper's batch size of 32, its
30,000 steps see each row ten times."""
_SHUFFLED = 10_000  # size of a stream's shuffle buffer, in rows


def load_hub_task(dataset_id: str, spec: DataSpec | None = None, **options: Any) -> Task:
    """Loads a data set from the Hugging Face Hub (or from the cache of `datasets`) as a task.

    Args:
        dataset_id: `owner/name`.
        spec: Configuration, revision, splits, and how rows are read. Class numbers become the data set's class
            names, which are also the labels, in their order, unless others are given.
        **options: Fields of `DataSpec`; they override `spec`.

    Raises:
        DownloadError: The data set cannot be fetched and is not cached.
        DataError: A split or column is missing, or as in `task_from_rows`.
    """
    chosen = DataSpec.of(spec, options)
    config, revision = chosen.config, chosen.revision
    loaded = _load(dataset_id, config, revision)
    wanted = {"train": chosen.train_split, "validation": chosen.validation_split, "test": chosen.test_split}
    return task_from_datasets(
        {split: _split(loaded, there) for split, there in wanted.items() if there is not None},
        name=chosen.name or "-".join(filter(None, (dataset_id.rpartition("/")[2], config))),
        source=f"hub:{dataset_id}{f'/{config}' if config else ''}{f'@{revision}' if revision else ''}",
        spec=chosen,
        license=loaded[chosen.train_split].info.license or "",
    )


def hub_rows(
    dataset_id: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    splits: Mapping[str, str],
    stream: bool = False,
    shuffle: bool = True,
    max_rows: int | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of a data set by split, with class numbers turned into class names.

    Args:
        dataset_id: `owner/name`.
        config: Name of the configuration, where a data set has several.
        revision: Commit, tag or branch.
        splits: Name of a split -> its name on the Hub, or several joined by `+`.
        stream: Whether to stream rows instead of fetching all of them.
        shuffle: Whether to take streamed rows, or a subset, in the order of seed 0; a stream shuffles in its buffer.
        max_rows: Most rows of a split. Default: all; for a stream, `STREAMED_ROWS`.

    Raises:
        DownloadError: The data set cannot be fetched and is not cached.
        DataError: A split is missing.
    """
    loaded = _load(dataset_id, config, revision, stream=stream)
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, there in splits.items():
        rows[name] = []
        for part in there.split("+"):
            data: Any = _split(loaded, part)
            if stream:
                data = data.shuffle(seed=0, buffer_size=_SHUFFLED) if shuffle else data
                data = data.take(max_rows or STREAMED_ROWS)
            elif max_rows is not None and max_rows < len(data):
                data = (data.shuffle(seed=0) if shuffle else data).select(range(max_rows))
            rows[name] += [_named(row, data.features or {}) for row in data]
    return rows


def task_from_datasets(
    splits: Mapping[str, "Dataset"],
    *,
    name: str,
    source: str,
    spec: DataSpec | None = None,
    license: str = "",
    **options: Any,
) -> Task:
    """Builds a task from data sets in memory, with class numbers turned into class names.

    Args:
        splits: A `datasets.Dataset` for `train` and, optionally, `validation` and `test`.
        name: Name of the task.
        source: Where the rows came from.
        spec: How to read them. By default, labels are the class names of the target column, if it has any.
        license: License of the data.
        **options: Fields of `DataSpec`; they override `spec`.

    Raises:
        DataError: As in `task_from_rows`.
    """
    chosen = DataSpec.of(spec, options)
    features = splits["train"].features
    classes = _classes(features)
    rows = {split: [_named(row, features) for row in data] for split, data in splits.items()}
    target = chosen.target or next((column for column in TARGET_NAMES if column in features), None)
    if chosen.labels is None and target in classes:
        chosen = chosen.model_copy(update={"labels": tuple(classes[target])})
    return task_from_rows(rows, name=name, source=source, spec=chosen, license=license)


def _load(dataset_id: str, config: str | None, revision: str | None, *, stream: bool = False) -> Any:
    import datasets

    from spoton.hub_offline import hub_or_cache

    unknown_host = None
    try:
        with hub_or_cache() as unknown_host:
            return datasets.load_dataset(dataset_id, config, revision=revision, streaming=stream)
    except (OSError, ValueError, RuntimeError) as error:  # offline, unknown, no configuration, a script
        what = f"{dataset_id} ({config})" if config else dataset_id
        why = f"no address was found for {unknown_host}, and it is not cached" if unknown_host else error
        raise DownloadError(
            f"Cannot load the data set {what} from the Hub: {why}. "
            "Check its name, configuration and the network; or save it as a file and give the path."
        ) from error


def _classes(features: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Returns class names by column."""
    from datasets import ClassLabel

    return {name: feature.names for name, feature in features.items() if isinstance(feature, ClassLabel)}


def _named(row: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the row with class numbers as names, also inside lists and nested columns."""
    return {name: _name(value, features.get(name)) for name, value in row.items()}


def _name(value: Any, feature: Any) -> Any:
    """Returns a value with class numbers as names; -1, the Hub's mark for a hidden label, becomes an empty cell."""
    names = getattr(feature, "names", None)
    if names is not None and (value is None or isinstance(value, int)):
        return names[value] if value is not None and value >= 0 else None
    if isinstance(feature, Mapping) and isinstance(value, Mapping):
        return _named(value, feature)
    inner = getattr(feature, "feature", None)
    if inner is not None and isinstance(value, list):
        return [_name(each, inner) for each in value]
    return value


def _split(loaded: Mapping[str, "Dataset"], name: str) -> "Dataset":
    if name not in loaded:
        raise DataError(
            f"The data set has no split {name!r}. Splits there: {', '.join(loaded)}. Name one of them."
        )
    return loaded[name]
