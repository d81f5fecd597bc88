"""The same matrix of exactness on a GPU, in float32 and bfloat16; and steps that never wait for it.

`pytest -m gpu` runs what needs a GPU, and skips with the reason where there is none. A few cells run on the processor
as well, so that what is written here is known to run.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from spoton.models import Batch, FrozenModel, engine_for
from spoton.models.concatenation import ConcatenationEngine
from spoton.models.encoder_decoder import EncoderDecoderEngine
from spoton.models.engine import Engine
from spoton.models.exactness import LONG, SHORT, difference, numbers, tolerance_of
from spoton.models.fused_decoder import FusedEngine
from spoton.models.packed_decoder import PackedEngine
from spoton.tuning.microbatches import Microbatches, StepRows
from tests.tiny import FAMILIES, WIDTH, draw, tiny

NO_GPU = "there is no GPU here: torch.cuda.is_available() is false"
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)]
HERE = ("llama", "t5")
CELLS = [
    *(pytest.param("cuda", family, marks=ON_GPU, id=f"cuda-{family}") for family in FAMILIES),
    *(pytest.param("cpu", family, id=f"cpu-{family}") for family in HERE),
]


def held(family: str, device: str, dtype: torch.dtype) -> FrozenModel:
    model = tiny(family)
    model.network.to(device=device, dtype=dtype)  # type: ignore[arg-type]  # transformers loses its overloads
    return model


def plain(model: FrozenModel) -> Engine:
    return EncoderDecoderEngine(model) if model.is_encoder_decoder else ConcatenationEngine(model)


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """TF32 rounds float32 products to ten bits, which is not what is compared here."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("device", "family"), CELLS)
def test_the_chosen_engine_gives_the_numbers_of_the_plain_one(
    device: str, family: str, dtype: torch.dtype
) -> None:
    model = held(family, device, dtype)
    for lengths in (SHORT, LONG):
        found, expected = (numbers(engine, model, lengths) for engine in (engine_for(model), plain(model)))
        assert difference(found, expected, tolerance_of(model)) == ""


@pytest.mark.parametrize(("device", "family"), CELLS)
def test_float32_gives_the_numbers_of_the_processor(device: str, family: str) -> None:
    model, here = held(family, device, torch.float32), tiny(family)
    found, expected = numbers(engine_for(model), model, SHORT), numbers(plain(here), here, SHORT)
    assert difference(found, expected, tolerance_of(here)) == ""


@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=ON_GPU) for one in ("llama", "mistral", "qwen2", "qwen3")]
)
def test_families_known_by_hand_run_fused_in_16_bits(family: str) -> None:
    """Heads of 16, since FlashAttention needs a multiple of 8 and gets a row that the formula on the CPU does not."""
    model = tiny(family, head_dim=16) if family != "qwen2" else tiny(family, hidden_size=96)
    model.network.to(device="cuda", dtype=torch.bfloat16)  # type: ignore[arg-type]  # as above
    engine = engine_for(model)
    assert isinstance(engine, FusedEngine), engine.choice
    for lengths in (SHORT, LONG, (*LONG, *SHORT) * 20):
        found, expected = (numbers(one, model, lengths) for one in (engine, plain(model)))
        assert difference(found, expected, tolerance_of(model)) == ""


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("longest", [pytest.param(n, marks=ON_GPU) for n in (33, 70, 127)])
def test_rows_of_any_length_are_read_in_16_bits(longest: int, dtype: torch.dtype) -> None:
    """A mask whose rows began between multiples of 16 bytes made cuDNN's attention fail on one length in eight."""
    model = held("llama", "cuda", dtype)
    for first in range(1, 10):
        lengths = [(longest - 7 * row % longest + first, 1 + row % 3) for row in range(24)]
        found, expected = (numbers(one, model, lengths) for one in (PackedEngine(model), plain(model)))
        assert difference(found, expected, tolerance_of(model)) == ""


@pytest.mark.parametrize(
    "device", [pytest.param("cuda", marks=ON_GPU, id="cuda"), pytest.param("cpu", id="cpu")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("loss", ["examples", "labels"])
def test_no_step_waits_for_the_device(device: str, dtype: torch.dtype, loss: str) -> None:
    model = tiny("llama", head_dim=16)
    model.network.to(device=device, dtype=dtype)  # type: ignore[arg-type]  # as above
    if device == "cuda":
        assert isinstance(engine_for(model), FusedEngine) == (dtype == torch.bfloat16)
    batch = Batch([[5, 9, 7], [3], [8, 2]], [[4], [6, 7], [6, 7]])
    rows = StepRows.of(batch, loss, [[4], [6, 7]])  # type: ignore[arg-type]  # a literal that pytest loses
    prompt = draw(3, WIDTH).to(device).requires_grad_()
    passes = Microbatches(model, 1e9)
    passes.gradients([prompt], [rows])  # the first step measures memory, and may wait
    prompt.grad = None
    mode = torch.cuda.get_sync_debug_mode() if device == "cuda" else 0
    try:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        losses = passes.gradients_on_device([prompt], [rows])
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode(mode)
    assert losses.device.type == device and bool(losses.isfinite().all())
    assert prompt.grad is not None and float(prompt.grad.norm()) > 0
