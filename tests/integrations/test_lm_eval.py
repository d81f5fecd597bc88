"""lm-evaluation-harness, in process and through a server: its accuracy is that of `spoton evaluate`, by rank."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from spoton.errors import PromptError
from spoton.evaluation import evaluate
from spoton.models import Batch, FrozenModel, engine_for
from spoton.prompts import PromptLibrary
from tests.serving.running import a_library, a_prompt, serving
from tests.tiny import BAD, GOOD, NOUNS, tiny, tokenizer, toy_task

lm_eval = pytest.importorskip("lm_eval", reason="needs spoton[lm-eval]")

from lm_eval.tasks import TaskManager  # noqa: E402

from spoton.integrations.lm_eval import SpotonLM  # noqa: E402

# Other people's deprecations are not ours to fix.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]

TASK = """
task: toy_reviews
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: {choices}
target_delimiter: " "
metric_list:
  - {{metric: acc}}
"""


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def library(model: FrozenModel, tmp_path_factory: pytest.TempPathFactory) -> PromptLibrary:
    return a_library(model, tmp_path_factory.mktemp("harness") / "prompts")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Task files over a local file, one for each label set, as the harness reads them."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [(f"The {noun} was {word}.\nVerdict:", word in BAD) for noun in NOUNS for word in (*GOOD, *BAD)]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": int(bad)}) + "\n" for text, bad in rows))
    for name, choices in (("short", ["yes", "no"]), ("long", ["yes maybe", "no"])):
        text = TASK.format(file=file, choices=json.dumps(choices)).replace("toy_reviews", f"toy_{name}")
        (folder / f"toy_{name}.yaml").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield TaskManager(include_path=str(folder), include_defaults=False)


def expected(model: FrozenModel, prompt: Any, labels: tuple[str, ...]) -> float:
    """Accuracy by rank on the same rows."""
    task = toy_task(labels)
    rows = [*task.train, *task.validation, *task.test]
    return evaluate(model, prompt, rows, task, "rank").scores["accuracy"] / 100


def accuracy(results: Any, task: str) -> float:
    return float(results["results"][task]["acc,none"])


@pytest.mark.parametrize(
    ("task", "labels"), [("toy_short", ("yes", "no")), ("toy_long", ("yes maybe", "no"))]
)
@pytest.mark.parametrize("name", ["short", "many", None])
def test_in_process(
    model: FrozenModel,
    library: PromptLibrary,
    tasks: Any,
    task: str,
    labels: tuple[str, ...],
    name: str | None,
) -> None:
    prompt = None if name is None else library.get(name)
    results = lm_eval.simple_evaluate(
        model=SpotonLM(model, prompt, batch_size=7), tasks=[task], task_manager=tasks, bootstrap_iters=0
    )
    assert accuracy(results, task) == expected(model, prompt, labels)


def test_through_a_server(
    model: FrozenModel, library: PromptLibrary, tasks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`local-completions` posts token ids with echo and log probabilities, several at once."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    with serving(model, library) as address:
        for task, labels, name in (
            ("toy_short", ("yes", "no"), "many"),
            ("toy_long", ("yes maybe", "no"), "short"),
        ):
            arguments = {
                "model": name, "base_url": f"{address}/v1/completions", "tokenizer": str(tmp_path / "tokenizer"),
                "tokenizer_backend": "huggingface", "num_concurrent": 2, "max_length": 100, "batch_size": 4,
            }  # fmt: skip
            results = lm_eval.simple_evaluate(
                model="local-completions",
                model_args=arguments,
                tasks=[task],
                task_manager=tasks,
                bootstrap_iters=0,
            )
            assert accuracy(results, task) == expected(model, library.get(name), labels)


def test_texts_of_any_length_and_greedy_continuations(model: FrozenModel, library: PromptLibrary) -> None:
    from lm_eval.api.instance import Instance

    prompt = library.get("short")
    lm = SpotonLM(model, prompt)
    text = "The film was lovely."
    (whole,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)])
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    (direct,) = lm._loglikelihood_tokens([(None, [model.tokenizer.bos_token_id], ids)])
    assert whole == pytest.approx(direct[0], abs=1e-4)
    (long,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text * 60,), 0)])
    assert long < whole
    (made,) = lm.generate_until(
        [Instance("generate_until", {}, (text, {"until": ["zz"], "max_gen_toks": 6}), 0)]
    )
    tokens = model.tokenizer.encode(made, add_special_tokens=False)
    ((likelihood, greedy),) = lm._loglikelihood_tokens([(None, ids, tokens[:1])])
    assert greedy and likelihood < 0
    (behind_a_long_one,) = lm.generate_until(
        [Instance("generate_until", {}, (text * 60, {"until": [], "max_gen_toks": 6}), 0)]
    )
    assert behind_a_long_one
    with pytest.raises(ValueError, match="greedily"):
        lm.generate_until([Instance("generate_until", {}, (text, {"temperature": 1.0}), 0)])


def test_an_encoder_reads_the_context_and_its_decoder_the_whole_continuation() -> None:
    from lm_eval.api.instance import Instance

    model = tiny("t5")
    lm, text = SpotonLM(model), "The film was lovely.\nVerdict:"
    asked = [Instance("loglikelihood", {}, (text, f" {word}"), 0) for word in ("yes", "no")]
    likelihoods = [likelihood for likelihood, _ in lm.loglikelihood(asked)]
    targets = [model.tokenizer.encode(f" {word}", add_special_tokens=False) for word in ("yes", "no")]
    losses = engine_for(model).losses(
        torch.zeros(1, 0, model.dim), Batch([model.encode_input(text)] * 2, targets)
    )
    assert likelihoods == pytest.approx((-losses).tolist()) and likelihoods[0] != likelihoods[1]


def test_a_prompt_of_another_model_is_refused(model: FrozenModel) -> None:
    with pytest.raises(PromptError):
        SpotonLM(model, a_prompt(model, "foreign", model_fingerprint="f00d"))


def test_a_prompt_under_an_older_fingerprint_of_the_model_is_taken(model: FrozenModel) -> None:
    older = a_prompt(model, "older", model_fingerprint=model.fingerprints[-1])
    assert SpotonLM(model, older).eot_token_id == model.end_token
