"""`--form` and `--chat` of the command line: what a prompt is tuned in, its card says, and it is evaluated in."""

from pathlib import Path

import pytest

from spoton.models import load_model
from spoton.prompts import SoftPrompt
from spoton.tasks.files import read_rows
from tests.cli.conftest import Run
from tests.tasks.test_sources import ROWS, write
from tests.tiny import tiny, tokenizer

RECIPE = ("--length", "4", "--steps", "2", "--key-step", "1", "--evaluate-every", "2", "--batch-size", "4")
CHAT = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "data" / "boolq", ROWS)
    return tmp_path / "data"


def tuned(run: Run, model: Path, data: Path, *options: str) -> SoftPrompt:
    out = data.parent / "p.safetensors"
    ran = run(
        "tune",
        "superglue/boolq",
        "--data-dir",
        data,
        "--model",
        model,
        "--out",
        out,
        *RECIPE,
        *options,
        "--overwrite",
        "--json",
    )
    assert ran.code == 0, ran.stderr
    prompt = SoftPrompt.load(out)
    assert ran.document["form"] == prompt.card.form
    return prompt


def test_a_prompt_is_evaluated_in_the_form_it_was_tuned_in(run: Run, tiny_model: Path, data: Path) -> None:
    for options, form in (((), "natural"), (("--form", "t5"), "t5")):
        prompt = tuned(run, tiny_model, data, *options)
        assert prompt.card.form == form
        file = data.parent / "p.safetensors"
        found = run("evaluate", file, "superglue/boolq", "--data-dir", data, "--json").document
        assert found["form"] == form


def test_a_prompt_from_before_there_were_forms_keeps_its_own(run: Run, tiny_model: Path, data: Path) -> None:
    prompt = tuned(run, tiny_model, data, "--form", "t5")
    old = prompt.card.model_dump()
    del old["form"]
    file = SoftPrompt(prompt.value, type(prompt.card)(**old), prompt.key).save(
        data.parent / "old.safetensors"
    )
    assert run("evaluate", file, "superglue/boolq", "--data-dir", data, "--json").document["form"] == "t5"
    said = run("predict", file, '{"passage": "a", "question": "b"}', "--json").document["predictions"][0]
    assert said["input"] == "boolq passage: a question: b"


def test_an_encoder_decoder_reads_the_form_of_t5(run: Run, data: Path) -> None:
    folder = data.parent / "t5"
    tiny("t5_v1_1").network.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    assert tuned(run, folder, data).card.form == "t5"


def test_a_chat_is_that_of_the_model(run: Run, data: Path) -> None:
    folder = data.parent / "chatty"
    tiny("llama").network.save_pretrained(folder)
    made = load_model(str(_with_template(folder))).tokenizer
    assert made.chat_template == CHAT
    prompt = tuned(run, folder, data, "--chat")
    assert prompt.card.form == "natural+chat"
    file = data.parent / "p.safetensors"
    found = run("evaluate", file, "superglue/boolq", "--data-dir", data, "--json").document
    assert found["form"] == "natural+chat", "a prompt that was tuned in a chat is evaluated in one"
    said = run("predict", file, '{"passage": "a", "question": "b"}', "--json").document["predictions"][0]
    assert said["input"] == "<user>a\nQuestion: b?</><assistant>Answer:"


@pytest.mark.parametrize("template", ["{{ title }}: {{ text }}\nVerdict:", "Review: {{ text }} Verdict:"])
def test_a_file_is_evaluated_by_the_template_inside_the_chat(run: Run, tmp_path: Path, template: str) -> None:
    """Not by the text column and the usual cue alone, which the prompt was never tuned on."""
    folder, file, answers = tmp_path / "chatty", tmp_path / "reviews.csv", tmp_path / "answers.csv"
    tiny("llama").network.save_pretrained(folder)
    _with_template(folder)
    rows = [f"T{i},The film was {i}.,{('good', 'bad')[i % 2]}" for i in range(20)]
    file.write_text("\n".join(["title,text,label", *rows]))
    out = tmp_path / "p.safetensors"
    tuning = run("tune", file, "--template", template, "--chat", "--model", folder, "--out", out, *RECIPE)
    assert tuning.code == 0, tuning.stderr
    assert run("evaluate", out, file, "--split", "all", "--predictions", answers).code == 0
    said = run("predict", out, "--file", file, "--json").document["predictions"]
    assert sorted(row["input"] for row in read_rows(answers)) == sorted(one["input"] for one in said)


def test_a_model_without_a_chat_template_is_refused(run: Run, tiny_model: Path, data: Path) -> None:
    ran = run("evaluate", "superglue/boolq", "--data-dir", data, "--model", tiny_model, "--chat", "--json")
    assert ran.code == 2 and "no chat template" in ran.document["error"]
    mixed = run(
        "tune", "mixture:cb,rte", "--chat", "--model", tiny_model, "--out", data / "p.safetensors", "--json"
    )
    assert mixed.code == 2


def _with_template(folder: Path) -> Path:
    tokenizer().save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder
