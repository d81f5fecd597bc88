"""What strangers write: templates, YAML, JSON, files that are none. Each is refused in words and runs nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt

from spoton.errors import DataError, PromptError, SpotonError, StudyError
from spoton.parsing import MalformedError, parse_json, parse_yaml
from spoton.prompts import Card, PromptLibrary, SoftPrompt
from spoton.study.plan.study_file import parse_study_file
from spoton.study.report.markdown import as_markdown
from spoton.study.report.parts import Section, Table
from spoton.tasks import resolve_task
from spoton.tasks.files import read_rows
from spoton.tasks.own_tasks import read_definition
from spoton.tasks.template import compile_template, render
from spoton.tuning import Recipe
from tests.cli.conftest import run  # noqa: F401  # a fixture

_DOUBLED = "{% set x = x ~ x %}"
TEMPLATES = [
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for i in r recursive %}{{ loop(r) }}{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% extends row %}",
    "{% import 'x' as x %}",
    "{% block a %}{% endblock %}",
    "{% call row() %}{% endcall %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ t * 9 }}{% endfor %}",
    "{% for i in range(99999) %}" + "z" * 9000 + "{% endfor %}",
    "{% for i in range(99999) %}{{ long in long }}{% endfor %}",
    "{% for i in range(99999) %}{{ long == long2 }}{% endfor %}",
    "{% for i in range(99999) %}{{ long[1:] }}{% endfor %}",
    "{% for i in range(99999) %}{{ long.upper() }}{% endfor %}",
    "{% for i in range(99999) %}{{ long | upper }}{% endfor %}",
    "{% set x = 'a' %}" + _DOUBLED * 60 + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = x + x %}" * 60 + "{{ x }}",
    "{% set x = (1,) %}" + "{% set x = (x, x) %}" * 60 + "{{ x == x }}",
    "{% set x = {1: 1} %}" + "{% set x = {1: x, 2: x} %}" * 60 + "{{ x }}",
    "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
    "{{ 9 ** 99999999 }}",
    "{{ 'a' * 2000000000 }}",
    "{{ 2000000000 * [1] }}",
    "{{ '%2000000000d' % 1 }}",
    "{{ '%*d' % (2000000000, 1) }}",
    "{{ '%2000000000d' | format(1) }}",
    "{{ '{:2000000000}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=2000000000) }}",
    "{{ 'a'.center(10 ** 12) }}",
    "{{ 'a' | center(2000000000) }}",
    "{{ 'a'.zfill(2000000000) }}",
    "{{ 'a'.ljust(2000000000) }}",
    "{{ 'a\\tb'.expandtabs(2000000000) }}",
    "{{ 'a' | indent(2000000000) }}",
    "{{ 1.5 | round(2000000000, 'ceil') }}",
    "{{ [1] | batch(2000000000, 0) | list }}",
    "{{ [1] | slice(2000000000) | list }}",
    "{{ ('a' * 9999).replace('a', 'b' * 9999) }}",
    "{{ ('a' * 9999) | replace('a', 'b' * 9999) }}",
    "{{ range(99999) | join('x' * 99999) }}",
    "{{ ('x' * 99999).join(range(99999) | map('string')) }}",
    "{{ range(99999) | map('center', 9999) | join }}",
    "{{ lipsum(99999) }}",
    "{{ cycler(1) }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ t | attr('__class__') }}",
    "{{ t['__class__'] }}",
    "{{ '{0.__class__}'.format(t) }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ t.encode() }}",
    "{{ r.append(1) }}",
    "{{ t | urlize }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "{{ " + "not " * 5000 + "1 }}",
    "{{ 1" + " | abs" * 5000 + " }}",
    "{{ 1" + " + 1" * 9000 + " }}",
    "{% if 1 %}" * 300 + "x" + "{% endif %}" * 300,
    "{% for i in r %}" * 60 + "x" + "{% endfor %}" * 60,
    "{{ " + "9" * 5000 + " }}",
    "x" * 60_000,
]


@pytest.mark.parametrize("source", TEMPLATES, ids=range(len(TEMPLATES)))
def test_templates(source: str) -> None:
    row = {"t": "word", "r": ["x", "y"], "long": "ab" * 20_000, "long2": "ab" * 19_999 + "ac"}
    with pytest.raises(DataError) as refused:
        render(compile_template(source), row)
    assert len(str(refused.value)) < 1000


def test_all_rows_of_a_template_share_one_reserve() -> None:
    """A template that costs almost too much on one row does not cost that on each of a million rows."""
    template = compile_template("{% for i in range(60000) %}{{ 1 }}{% endfor %}")
    with pytest.raises(DataError, match="too much time"):
        for _ in range(100):
            render(template, {"t": "word"})


def test_what_templates_are_for_still_works() -> None:
    source = (
        "{% for w in r %}{{ loop.index }} {{ w }}{{ ', ' if not loop.last }}{% endfor %}|{{ '%.1f' % x }}|{{ t[:2] }}|"
        "{{ r | map('upper') | join(' ') }}|{{ t.replace('o', '0') }}|{{ y | default('none') }}|{{ 'a' ~ 1 }}"
    )
    filled = render(compile_template(source), {"r": ["a", "b"], "x": 1.25, "t": "foo"})
    assert filled == "1 a, 2 b|1.2|fo|A B|f00|none|a1"


YAML = [
    "[" * 50_000,
    "- " * 5000 + "x",
    "{a: " * 200 + "1" + "}" * 200,
    "a: 2024-99-99",
    "a: " + "1" * 5000,
    "a: 0x" + "f" * 9000,
    "a: 1:" + "1:" * 3000 + "1",
    "&a [*a]",
    "a: &a {<<: *a}",
    "a0: &a0 {x: 1}\n" + "\n".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40)),
    "a0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)),
    "!!python/object/apply:os.system ['true']",
    "!!python/name:os.system ''",
    "!!binary x",
    "!!bool x",
    "!!int ''",
    "!!float ''",
    "!!timestamp x",
    "!!set {[1]: 1}",
    "? [1]\n: 2",
    "a: \x1b[31m",
    "a\x00b",
    "\ud800",
    "a: 1\n---\nb: 2",
    "a: *nothing",
    "{",
    "\t- a",
    "a: 'b",
    "%YAML 9.9\n---\na: 1\n...\n%",
    "<<: 1",
]


@pytest.mark.parametrize("text", YAML, ids=range(len(YAML)))
def test_yaml(text: str, tmp_path: Path) -> None:
    with pytest.raises(MalformedError):
        parse_yaml(text)
    with pytest.raises(StudyError):
        parse_study_file(text, "study.yaml")
    file = tmp_path / "task.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(DataError):
        read_definition(file)


JSON = [
    "[" * 50_000,
    '{"a":' * 200 + "1" + "}" * 200,
    "1" * 5000,
    "{",
    "",
    "\ufeff",
    "[1,]",
    "'a'",
    "nul",
    '"\x00"',
]


@pytest.mark.parametrize("text", JSON, ids=range(len(JSON)))
def test_json(text: str, tmp_path: Path) -> None:
    with pytest.raises(MalformedError):
        parse_json(text)
    file = tmp_path / "rows.jsonl"
    file.write_text(text + "\n")
    with pytest.raises(DataError):
        read_rows(file)


def crafted(card: str, *, size: int = 16, entries: object = None) -> bytes:
    """A prompt file with any text as its record."""
    head = {
        "__metadata__": {"spoton": card},
        "value": {"dtype": "F32", "shape": [1, 4], "data_offsets": [0, size]},
    }
    text = json.dumps(head if entries is None else entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(16)


CARDS = [
    "[" * 50_000,
    json.dumps({"format": "spoton-prompt-1", "card": {}}),
    json.dumps({"format": "spoton-prompt-9", "card": {}}),
    json.dumps({"format": ["x"], "card": 1}),
    json.dumps([1]),
    "1" * 5000,
    "",
    "{" + " " * (5 * 2**20) + "}",
    '{"format": "spoton-prompt-1", "card": ' + '{"a":' * 200 + "1" + "}" * 201,
]
HEADS: list[object] = [
    [], 1, {}, {"__metadata__": 1}, {"__metadata__": {"spoton": 1}}, {"value": 1}, {"value": {}},
    {"value": {"dtype": "F32", "shape": "x", "data_offsets": [0, 16]}},
    {"value": {"dtype": "F32", "shape": [1, 4], "data_offsets": [0, 10**18]}},
    {"value": {"dtype": "F32", "shape": [-1, 4], "data_offsets": [0, 16]}},
    {"value": {"dtype": "F32", "shape": [10**12, 10**12], "data_offsets": [0, 16]}},
]  # fmt: skip
FILES = [
    *map(crafted, CARDS),
    *(crafted("", entries=head) for head in HEADS),
    b"",
    b"\xff" * 8,
    b"\xff" * 64,
    bytes(8),
    (10**15).to_bytes(8, "little") + b"{}",
    b"PK\x03\x04" + bytes(100),
]


def test_prompt_files_in_a_library(tmp_path: Path) -> None:
    """None stops a library, and each is named; so are a pipe, a sparse file of a terabyte and a link to nowhere."""
    library = PromptLibrary(tmp_path)
    library.add(SoftPrompt(torch.ones(2, 4), Card(name="good", task="t", model="m", model_fingerprint="f")))
    for number, data in enumerate(FILES):
        (tmp_path / f"bad{number}.safetensors").write_bytes(data)
        with pytest.raises(PromptError):
            SoftPrompt.load(tmp_path / f"bad{number}.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with (tmp_path / "sparse.safetensors").open("wb") as sparse:
        sparse.truncate(2**40)
    (tmp_path / "device.safetensors").symlink_to("/dev/zero")
    (tmp_path / "folder.safetensors").mkdir()
    assert [entry.name for entry in library.list()] == ["good"]
    assert len(library.damaged) == len(FILES) + 4
    assert library.verify().ok == ["good"]


def test_no_escape_reaches_a_terminal(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\x08"
    card = Card(
        name="x", task=evil, model=evil, model_fingerprint="f", labels=[evil], notes=evil, family=evil
    )
    PromptLibrary(tmp_path / "lib").add(SoftPrompt(torch.ones(2, 4), card), name="x")
    data = tmp_path / "rows.csv"
    text = evil.replace("\r", "")
    rows = [f"{i} {text},a{i % 2}\x1b[31m\n" for i in range(60)]
    data.write_text("text,label\n" + "".join(rows))
    commands = (
        ("library", "list", "--library", tmp_path / "lib"),
        ("library", "show", "x", "--library", tmp_path / "lib"),
        ("library", "verify", "--library", tmp_path / "lib"),
        ("library", "show", evil),
        ("tasks", "show", data),
        ("tasks", "show", data, "--target", evil),
        ("tasks", "show", evil),
        (evil,),
        ("library", "list", evil + "x"),
        ("library", "show", "x", "--library", evil),
    )
    for command in commands:
        for as_json in ((), ("--json",)):
            ran = run(*command, *as_json)
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", ran.stdout + ran.stderr), command
            assert ran.code in (0, 2) and "Traceback" not in ran.stderr


def test_markdown_of_a_report_holds_no_tags_and_no_links() -> None:
    evil = "<script>x</script>|[a](javascript:b)\\[c](d)![e](f)<g@h.example>`\n# c"
    text = as_markdown(evil, [Section(evil, [evil, Table(evil, [evil], [[evil]], folded=evil)])], {})
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = Counter(token.type for line in tokens for token in (line, *(line.children or ())))
    assert kinds["heading_open"] == 2 and kinds["table_open"] == 1 and kinds["td_open"] == 1
    assert not kinds.keys() & {"link_open", "image", "html_inline", "html_block", "code_inline", "fence"}
    shown = "".join(child.content for child in tokens[1].children or ())
    assert shown == " ".join(evil.splitlines())


NAMES = [
    "", " ", ".", "..", "/", "//", "-", "--", "~", "~nobody-of-that-name/x", "../../etc/passwd", "/etc/shadow/x",
    "/dev/zero", "/dev/stdin/x", "/proc/self/mem", "hub:", "hub:/", "hub:a/b/c/d", "hub:../..", "hub:\x00",
    "a\x00b", "\x1b[31m",
    "\udcff", "\u202egnp", "x" * 300, "x" * 5000, "a/" * 3000, "mix:", "mix:a+", "{{ 7 * 7 }}", "$(true)", "`true`",
    "x;true", "file:///etc/passwd", "http://", "%2e%2e%2f", "CON", "a\nb", "a\tb", "*", "?", "[",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a task, as a prompt and as the name of a prompt to add: each is refused in words, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    library = PromptLibrary(tmp_path / "library")
    prompt = SoftPrompt(torch.ones(2, 4), Card(name="good", task="t", model="m", model_fingerprint="f"))
    for attempt in (
        lambda: resolve_task(name),
        lambda: SoftPrompt.load(Path(name)),
        lambda: library.get(name),
        lambda: library.add(prompt, name=name),
    ):
        with pytest.raises(SpotonError) as refused:
            attempt()
        assert len(str(refused.value)) < 12_000
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def zipped(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/") + ".xml", data)
    return content.getvalue()


_LAUGHS = b"<!DOCTYPE x [" + b"".join(
    b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10 if i else b"ha") for i in range(12)
)
DATA = [
    (".csv", b""),
    (".csv", b"\n" * 5000),
    (".csv", b"\x00" * 5000),
    (".csv", b"\xff\xfe"),
    (".csv", b"\xff\xfea"),
    (".csv", b"\xef\xbb\xbf"),
    (".csv", b'"' * 5001),
    (".csv", b"a,b\n" + b'"' + b"x," * 50_000),
    (".csv", b",,,,\n,,,,\n"),
    (".csv", b"a,a\n1,2\n"),
    (".csv", b"a,b\n1\n"),
    (".csv", b"a,b\n1,2,3\n"),
    (".csv", b"sep=\n"),
    (".csv", b"sep=,,\nx"),
    (".csv", gzip.compress(b"")),
    (".csv", gzip.compress(b"a,b\n")[:-6]),
    (".csv", b"\x1f\x8b" + bytes(50)),
    (".json", b"[" * 50_000),
    (".json", b"{}"),
    (".json", b"[1, 2]"),
    (".json", b'[{"a": 1}, 2]'),
    (".json", b'"x"'),
    (".json", b"[" + b"1" * 5000 + b"]"),
    (".jsonl", b"1\n2\n"),
    (".jsonl", b"null\n"),
    (".jsonl", b"{}\n"),
    (".jsonl", b'{"a":'),
    (".parquet", b""),
    (".parquet", b"PAR1" * 3),
    (".parquet", b"PAR1" + b"\xff" * 64 + b"PAR1"),
    (".parquet", b"x" * 100),
    (".xlsx", b""),
    (".xlsx", b"PK\x03\x04" + bytes(64)),
    (".xlsx", zipped(nothing=b"<x/>")),
    (".xlsx", zipped(xl__workbook=b"<x")),
    (".xlsx", zipped(xl__workbook=_LAUGHS + b"]><x>&a11;</x>")),
    (".xlsx", zipped(**{"[Content_Types]": _LAUGHS + b"]><Types>&a11;</Types>", "xl__workbook": b"<x/>"})),
    (".exe", b"MZ" + bytes(100)),
    ("", b"a,b\n1,2\n"),
    (".txt", b"\xff" * 10),
]


@pytest.mark.parametrize(("suffix", "data"), DATA, ids=range(len(DATA)))
def test_data_files(suffix: str, data: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"data{suffix}"
    file.write_bytes(data)
    with pytest.raises(DataError) as refused:
        resolve_task(str(file))
    assert 20 < len(str(refused.value)) < 1000


@pytest.mark.parametrize("change", [{"batch_size": 10**12}, {"steps": 10**30}, {"length": 10**9}])
def test_sizes_are_bounded(change: dict[str, int]) -> None:
    with pytest.raises(SpotonError, match=next(iter(change))):
        Recipe().changed(**change)


def test_fifty_thousand_columns(tmp_path: Path) -> None:
    file = tmp_path / "wide.csv"
    file.write_text(",".join(f"c{i}" for i in range(50_000)) + "\n" + ",".join("1" * 50_000) + "\n")
    assert len(read_rows(file)[0]) == 50_000
