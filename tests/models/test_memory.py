"""How much memory is free, by files as the kernel writes them, and batches that keep within it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from spoton.models import memory
from spoton.models.memory import batches_by_length, free_bytes, is_out_of_memory
from tests.tiny import tiny

MIB = 2**20


def group(folder: Path, limit: str, used: int, inactive: int, *, version: int = 2) -> None:
    """A control group with a limit, as the kernel shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        1: ("limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
        2: ("max", "current", "inactive_file"),
    }
    for name, text in zip(names[version], (limit, str(used)), strict=False):
        (folder / f"memory.{name}").write_text(f"{text}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[version][2]} {inactive}\nfile 7\n")


def free_in(tmp_path: Path, line: str) -> list[int]:
    own = tmp_path / "self"
    own.write_text(line)
    return memory._free_in_groups(tmp_path / "groups", own)


def test_a_limit_of_version_2_counts_without_what_the_cache_gives_back(tmp_path: Path) -> None:
    group(tmp_path / "groups" / "job", str(100 * MIB), 70 * MIB, 20 * MIB)
    assert free_in(tmp_path, "0::/job\n") == [50 * MIB]


def test_a_limit_of_version_1_too(tmp_path: Path) -> None:
    group(tmp_path / "groups" / "memory" / "job", str(100 * MIB), 70 * MIB, 20 * MIB, version=1)
    assert free_in(tmp_path, "11:cpu,cpuacct:/other\n4:memory:/job\n") == [50 * MIB]


def test_the_group_above_may_be_the_narrow_one(tmp_path: Path) -> None:
    group(tmp_path / "groups" / "job" / "step", "max", 5 * MIB, 0)
    group(tmp_path / "groups" / "job", str(30 * MIB), 40 * MIB, 0)
    assert free_in(tmp_path, "0::/job/step\n") == [0]  # over its limit, not less than nothing


def test_a_container_sees_its_own_group_at_the_root(tmp_path: Path) -> None:
    """The path is that of the host, of which nothing is mounted."""
    group(tmp_path / "groups", str(64 * MIB), 10 * MIB, 0)
    assert free_in(tmp_path, "0::/docker/0123abcd\n") == [54 * MIB]


def test_without_limits_there_is_nothing_to_keep_to(tmp_path: Path) -> None:
    assert free_in(tmp_path, "0::/job\n") == [] == memory._free_in_groups(tmp_path, tmp_path / "nowhere")


def test_free_memory_is_that_of_the_narrowest_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    group(tmp_path / "groups" / "job", str(2 * MIB), MIB, 0)
    (tmp_path / "self").write_text("0::/job\n")
    groups = memory._free_in_groups
    monkeypatch.setattr(memory, "_free_in_groups", lambda: groups(tmp_path / "groups", tmp_path / "self"))
    assert free_bytes(torch.device("cpu")) == MIB < psutil.virtual_memory().available


def test_on_cuda_a_reserve_is_free_up_to_the_share_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, share = torch.device("cuda"), 1.0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * MIB, 100 * MIB))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20 * MIB)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50 * MIB)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: share)
    assert free_bytes(gpu) == 35 * MIB
    share = 0.5
    assert free_bytes(gpu) == 30 * MIB
    share = 0.1
    assert free_bytes(gpu) == 0


def test_batches_of_an_evaluation_shrink_with_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, lengths = tiny("llama"), [20] * 64
    wide = batches_by_length(model, lengths)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * MIB)
    narrow = batches_by_length(model, lengths)
    assert max(map(len, narrow)) < max(map(len, wide)) == 32
    assert sorted(row for one in narrow for row in one) == list(range(64))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert set(map(len, batches_by_length(model, lengths))) == {1}


def test_the_error_of_the_real_allocator_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
