"""Tasks from Hugging Face data sets, through `datasets`.

Finds the splits and the class names of a data set; what its columns mean is settled in `tabular`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spoton.errors import DataError, DownloadError
from spoton.tasks.tabular import TARGET_NAMES, task_from_rows
from spoton.tasks.task import Task

if TYPE_CHECKING:
    from datasets import Dataset


def load_hub_task(
    dataset_id: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    input: str | None = None,
    target: str | None = None,
    template: str | None = None,
    name: str | None = None,
    family: str = "",
    labels: Sequence[str] | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
) -> Task:
    """Load a data set from the Hugging Face Hub (or from the cache of `datasets`) as a task.

    Args:
        dataset_id: `owner/name`.
        config: Name of the configuration, where a data set has several.
        revision: Commit, tag or branch. Pin it for results that shall be repeated.
        input: Column of the input; see `load_task_file` for this and the columns, labels and metrics below.
        target: Column of the target; class numbers become the names that the data set gives them.
        template: Jinja template of the input over all columns, in place of `input`.
        name: Name of the task. Default: the data set's name, with its configuration.
        family: What kind of task it is, such as sentiment.
        labels: The closed set of targets in its order. Default: the names of the classes, else from the data.
        train_split: Split to tune on.
        validation_split: Split to choose by. Default: taken out of train.
        test_split: Split to score on. Default: taken out of train; many public test splits have no labels.
        metrics: Names in `METRICS`, the main one first.
        seed: Decides the splits taken out of train.

    Raises:
        DownloadError: The data set cannot be fetched and is not cached.
        DataError: A split or column is not there, or as in `task_from_rows`.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(dataset_id, config, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:  # offline, unknown, no configuration, a script
        what = f"{dataset_id} ({config})" if config else dataset_id
        raise DownloadError(
            f"Cannot load the data set {what} from the Hub: {error}. "
            "Check its name, configuration and the network; or save it as a file and give the path."
        ) from error
    wanted = {"train": train_split, "validation": validation_split, "test": test_split}
    return task_from_datasets(
        {split: _split(loaded, there) for split, there in wanted.items() if there is not None},
        name=name or "-".join(filter(None, (dataset_id.rpartition("/")[2], config))),
        family=family,
        source=f"hub:{dataset_id}{f'/{config}' if config else ''}{f'@{revision}' if revision else ''}",
        input=input,
        target=target,
        template=template,
        labels=labels,
        metrics=metrics,
        license=loaded[train_split].info.license or "",
        seed=seed,
    )


def task_from_datasets(
    splits: Mapping[str, "Dataset"], *, labels: Sequence[str] | None = None, **arguments: Any
) -> Task:
    """Build a task from data sets in memory, class numbers turned into class names.

    Args:
        splits: A `datasets.Dataset` for `train` and, optionally, `validation` and `test`.
        labels: The closed set of targets. Default: the class names of the target column, if it has some.
        **arguments: As in `task_from_rows`.

    Raises:
        DataError: As in `task_from_rows`.
    """
    from datasets import ClassLabel

    features = splits["train"].features
    classes = {name: feature.names for name, feature in features.items() if isinstance(feature, ClassLabel)}
    rows = {split: [_named(row, classes) for row in data] for split, data in splits.items()}
    target = arguments.get("target") or next((name for name in TARGET_NAMES if name in features), None)
    if labels is None and target in classes:
        labels = classes[target]
    return task_from_rows(rows, labels=labels, **arguments)


def _named(row: Mapping[str, Any], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The row with class numbers as names; -1, the Hub's mark for a hidden label, becomes an empty cell."""
    return {
        name: (classes[name][value] if value is not None and value >= 0 else None)
        if name in classes
        else value
        for name, value in row.items()
    }


def _split(loaded: Mapping[str, "Dataset"], name: str) -> "Dataset":
    if name not in loaded:
        raise DataError(
            f"The data set has no split {name!r}. Splits there: {', '.join(loaded)}. Name one of them."
        )
    return loaded[name]
