"""Every command and every Python block of every page runs in a test, or stands below with the reason why not.

The commands of most pages run here as they stand, in one folder, with a tiny model in the place of the embedded one.
Other test modules run the pages of `RUN_ELSEWHERE`.
"""

from __future__ import annotations

import json
import re
import shutil
import webbrowser
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from spoton.cli.app import app
from spoton.models import load_model
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.study.plan.study_file import read_study_file
from tests.acceptance.pages import CHECKOUT, PAGES, blocks, words
from tests.models.test_gguf_files import write_gguf
from tests.study.small import make_study_in
from tests.tiny import BAD, GOOD, NOUNS, WIDTH, draw, tiny, tokenizer

HERE = Path(__file__).parent

RUN_ELSEWHERE = {
    "README.md": "test_quickstart.py",
    "docs/how-to/add-a-task.md": "test_docs.py",
    "docs/how-to/analyse-a-study.md": "test_analyse_a_study.py",
    "docs/how-to/serve-elsewhere/any-server.md": "test_exchange_pages.py",
    "docs/how-to/serve-elsewhere/llama-cpp.md": "test_exchange_pages.py",
    "docs/how-to/serve-elsewhere/tgis.md": "test_exchange_pages.py",
    "docs/how-to/serve-elsewhere/transformers-peft.md": "test_exchange_pages.py",
    "docs/how-to/serve-elsewhere/vllm.md": "test_exchange_pages.py",
    "docs/how-to/serve-prompts.md": "test_serve_page.py",
    "docs/how-to/share-a-library.md": "test_exchange_pages.py",
    "docs/how-to/use-from-python.md": "test_docs.py",
    "docs/reference/exchange.md": "test_exchange_pages.py",
}
"""Pages that a test module of this folder runs as a whole."""

NOT_RUN_HERE = {
    r"spoton serve\b": "a server does not end; test_serve_page.py runs one",
    r"spoton models pull\b": "a download; test_tutorial.py pulls the model",
    r"spoton --(install|show)-completion": "they write to the shell's start-up file, or ask which shell this is",
    r"spoton tasks show hub:": "owner/name stands for a data set; tests/tasks/test_hub.py reads one",
    r"spoton study run .*--executor ray": "a cluster; tests/study/run/test_executors.py starts a small one",
    r"spoton study run .*--device cuda": "needs a GPU",
    r"SPOTON_DATA_DIR=data spoton study run docs/": "hours; tests/study/plan/test_cells.py checks that it resumes",
}
"""Commands of spoton that only have to parse, and why."""

OTHER_PROGRAMS = {
    "make": "minutes to hours; test_readme.py and test_make_targets_exist check that the targets exist",
    ".ci/run": "lint and the tests",
    ".venv/bin/pre-commit": "changes the checkout's Git hooks",
    ".venv/bin/python": "measurements of minutes to hours; tests/experiments runs small ones",
    "python": "the same",
    "pip": "test_wheel.py installs the package",
    "uv": "docs/install.md says that it was not run",
    "docker": "docs/install.md says that it was not run",
}
"""Programs whose commands do not run, and why."""

SMALL = {"--steps": "4", "--key-step": "2", "--evaluate-every": "2", "--batch-size": "4", "--length": "4"}
IN_LIBRARY = ("movie_sentiment", "product_sentiment", "tweet_sentiment")


def page_name(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


def lines_of(page: Path) -> list[str]:
    """Returns the commands in the console blocks of a page."""
    text = "\n".join(
        part.replace("\\\n", " ")
        for part in re.findall(r"^ *```console\n(.*?)^ *```$", page.read_text(), re.M | re.S)
    )
    return re.findall(r"^ *\$ (.*)$", text, re.MULTILINE)


def not_run(line: str) -> bool:
    return any(re.match(pattern, line) for pattern in NOT_RUN_HERE)


RUN_HERE = [
    page
    for page in PAGES
    if page_name(page) not in RUN_ELSEWHERE
    and any(re.match(r"spoton [a-z]", line) and not not_run(line) for line in lines_of(page))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data files, rows of bundled tasks, prompts, and libraries."""
    folder = tmp_path_factory.mktemp("pages")
    tiny("llama").network.save_pretrained(folder / "smollm2-135m")
    tokenizer().save_pretrained(folder / "smollm2-135m")
    tiny("gemma3", hidden_size=60).network.save_pretrained(folder / "new-model")
    tokenizer().save_pretrained(folder / "new-model")
    write_gguf(folder / "gemma.gguf")
    texts = [
        (f"The {noun} was {word}.{more}", word in GOOD)
        for more in ("", " Really.", " Again.", " So it was.")
        for noun in NOUNS
        for word in (*GOOD, *BAD)
    ]
    rows = [f"{text},{'yes' if good else 'no'},A film,{text},{5 if good else 1}" for text, good in texts]
    (folder / "reviews.csv").write_text("\n".join(["text,label,title,body,stars", *rows]))
    for name, verb in (("support", "is"), ("complaints", "seems")):
        teams = [f"{text.replace('was', verb)},{'yes' if good else 'no'}" for text, good in texts]
        (folder / f"{name}.csv").write_text("\n".join(["text,team", *teams]))
    (folder / "new.csv").write_text("text\nThe film was fine.\n")
    (folder / "scores.csv").write_text("source,target,mean\nbaseline,b,50\na,b,60\n")
    turns = [{"prompt": text, "completion": "yes" if good else "no"} for text, good in texts]
    (folder / "dialogues.jsonl").write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    for name in ("news_sentiment", "movie_sentiment", "tweet_sentiment", "product_sentiment"):
        (folder / "data" / name).mkdir(parents=True)
        for split, part in (("train", texts[:100]), ("validation", texts[100:110]), ("test", texts[110:120])):
            rated = [{"text": f"{name} {text}", "valence": 2 if good else -2} for text, good in part]
            lines = "".join(json.dumps(row) + "\n" for row in rated)
            (folder / "data" / name / f"{split}.jsonl").write_text(lines)
    _fill_libraries(folder)
    return folder


def _fill_libraries(folder: Path) -> None:
    """Writes prompts of the tiny model, as files and into the three libraries that pages name."""
    model = load_model(str(folder / "smollm2-135m"))

    def prompt(name: str, seed: int) -> SoftPrompt:
        card = Card(
            name=name, task=name, family="sentiment", model="smollm2-135m", model_fingerprint=model.fingerprint,
            template="{{ text }}\nAnswer:", labels=["yes", "no"], recipe={"length": 4, "init": "vocabulary"},
        )  # fmt: skip
        value, key = draw(4, WIDTH, seed=seed), draw(4, WIDTH, seed=seed + 50)
        return SoftPrompt(value, card, key)

    for seed, name in enumerate(("old", "new", "reviews")):
        prompt(name, seed).save(folder / f"{name}.safetensors")
    for place in ("prompts", "team"):
        library = PromptLibrary(folder / place)
        for seed, name in enumerate(IN_LIBRARY, start=5):
            library.add(prompt(name, seed))


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shutil.copy("old.safetensors", "reviews.safetensors")
    shutil.rmtree("own-library", ignore_errors=True)
    shutil.copytree("prompts", "own-library")
    monkeypatch.setenv("SPOTON_LIBRARY", str(folder / "own-library"))
    monkeypatch.setenv("SPOTON_DATA_DIR", str(folder / "data"))
    monkeypatch.setattr(webbrowser, "open", lambda url: True)


def as_here(line: str, page: Path) -> list[str]:
    """Returns the arguments of a command, with places that exist here and fewer steps."""
    line = line.replace("/mnt/team/prompts", "team").replace("docs/studies/", f"{CHECKOUT}/docs/studies/")
    line = line.replace("hf://owner/name reviews", "hf://owner/name movie_sentiment --replace")
    line = line.replace("hf://owner/name", f"memory://{page.stem}/prompts")
    if line.count("--library") == 1:  # prompts of the starter library belong to the embedded model
        line = line.replace("--library starter", "--library prompts")
    arguments = words(line)[1:]
    for option, value in smaller(arguments).items():
        if option in arguments:
            arguments[arguments.index(option) + 1] = value
        else:
            arguments += [option, value]
    return arguments


def smaller(arguments: list[str]) -> dict[str, str]:
    """Returns the options that make a command quick."""
    if arguments[0] == "doctor":
        return {"--batch-size": "2"}
    if arguments[0] not in ("tune", "adapt") or "--steps 0" in " ".join(arguments):
        return {}
    if "halving" in arguments:
        return SMALL | {"--steps": "40"}
    if "--method model" in " ".join(arguments):  # there is no prompt
        return {option: value for option, value in SMALL.items() if option not in ("--key-step", "--length")}
    return SMALL


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", RUN_HERE, ids=page_name)
def test_the_commands_of_a_page_run(page: Path, folder: Path) -> None:
    for line in lines_of(page):
        if not re.match(r"spoton [a-z]", line) or not_run(line):
            continue
        arguments = as_here(line, page)
        if arguments[:2] == ["study", "new"]:
            shutil.rmtree(arguments[2], ignore_errors=True)
        if arguments[0] in ("tune", "adapt", "import", "export") and "--out" in arguments:
            _remove(Path(arguments[arguments.index("--out") + 1]), keep=arguments)
        ran = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert ran.exit_code == 0, f"{line}\n{ran.output}"
        if arguments[:3] == ["study", "new", "mine"]:  # the study of `new` needs the embedded model
            shutil.rmtree("mine")
            make_study_in(folder, folder / "smollm2-135m", name="mine")


def _remove(out: Path, keep: list[str]) -> None:
    """Removes what an earlier page left at the place of a command's result, unless the command reads it."""
    if str(out) in keep[: keep.index("--out")]:
        return
    for path in (out, *out.parent.glob(f"{out.stem}.*")):
        if path.suffix not in (".csv", ".jsonl"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.parametrize("page", [p for p in PAGES if page_name(p) not in RUN_ELSEWHERE], ids=page_name)
def test_the_python_of_a_page_runs(page: Path, folder: Path) -> None:
    import numpy as np

    import spoton

    names: dict[str, Any] = {}
    shown = blocks(page, "python")
    if not shown:
        return
    if page.stem == "engine":  # `model` and `task` are what the reader has
        names["model"] = load_model(str(folder / "smollm2-135m"))
        names["task"] = spoton.resolve_task("reviews.csv", input="text", target="label").limited(train=8)
        shown = [block.replace("Recipe(", "Recipe(steps=2, evaluate_every=2, length=2, ") for block in shown]
    np.save("sst2.npy", draw(4, WIDTH).numpy())
    for block in shown:
        exec(compile(block, page.name, "exec"), names)


def test_yaml_of_the_catalog_is_that_of_the_file() -> None:
    shown: dict[str, Any] = {}
    for block in blocks(CHECKOUT / "docs" / "reference" / "catalog.md", "yaml"):
        shown |= yaml.safe_load(block)
    assert shown == yaml.safe_load((CHECKOUT / "src/spoton/tasks/catalog/wic.yaml").read_text())


def test_yaml_of_a_study_is_valid(tmp_path: Path) -> None:
    whole, library, multi_task = blocks(CHECKOUT / "docs" / "how-to" / "run-a-study.md", "yaml")
    (tmp_path / "study.yaml").write_text(whole)
    study = read_study_file(tmp_path / "study.yaml")
    assert [entry.task for entry in study.targets.tasks] == ["cb", "rte"]
    changed = (
        yaml.safe_load(whole) | yaml.safe_load(library) | yaml.safe_load(multi_task) | {"retrieval": {}}
    )  # a mixture of the retrieved needs rows of sources
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(changed))
    study = read_study_file(tmp_path / "study.yaml")
    assert study.sources.prompts == ["mnli", "sst2", "trec"]
    assert [entry.task for entry in study.tasks_of("mixture")] == ["mixture:mnli,qqp,sst2"]


def test_every_block_has_its_test() -> None:
    """A page that starts to show a command or Python has to be run, or to be listed above."""
    pages = {page_name(page): page for page in PAGES}
    assert RUN_ELSEWHERE.keys() <= pages.keys()
    for name, module in RUN_ELSEWHERE.items():
        source = (HERE / module).read_text()
        assert Path(name).name in source or "serve-elsewhere" in source, (name, module)
    lines = {line: page for page in [*PAGES, CHECKOUT / "CONTRIBUTING.md"] for line in lines_of(page)}
    foreign = {
        line
        for line, page in lines.items()
        if page_name(page) not in RUN_ELSEWHERE and not re.match(r"(SPOTON_\w+=\S+ )?spoton\b", line)
    }
    assert {line for line in foreign if line.split()[0] not in OTHER_PROGRAMS} == set()
    assert all(any(re.match(pattern, line) for line in lines) for pattern in NOT_RUN_HERE)
    languages = {
        language for page in PAGES for language in re.findall(r"^ *```(\w+)$", page.read_text(), re.MULTILINE)
    }
    assert languages == {"console", "python", "yaml", "text"}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/performance.md", "docs/reliability.md"])
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    named = {line.split()[1] for line in lines_of(CHECKOUT / page) if line.startswith("make ")}
    assert named and named <= targets
