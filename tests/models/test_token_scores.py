"""Log-likelihoods of tokens that are there, against the plain formula."""

from __future__ import annotations

import pytest
import torch

from spoton.models import token_scores as module
from spoton.models.token_scores import token_scores
from tests.tiny import draw


@pytest.mark.parametrize("at_once", [1, 7, 10**6])
def test_pieces_of_any_size_give_the_plain_formula(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", at_once * 11)
    logits, wanted = draw(9, 11, scale=3), torch.arange(9)
    found = token_scores(lambda part: logits[part], wanted, [4, 0, 5], k=3, vocabulary=11)
    plain = logits.log_softmax(dim=-1)
    assert [len(one.log_likelihoods) for one in found] == [4, 0, 5]
    torch.testing.assert_close(torch.cat([one.log_likelihoods for one in found]), plain[range(9), wanted])
    best = plain.sort(dim=-1, descending=True)
    torch.testing.assert_close(torch.cat([one.top for one in found]), best.values[:, :3])
    assert torch.equal(torch.cat([one.top_tokens for one in found]), best.indices[:, :3])


def test_no_places_at_all() -> None:
    (found,) = token_scores(lambda part: torch.empty(0, 11), torch.empty(0, dtype=torch.long), [0], 2, 11)
    assert found.log_likelihoods.shape == (0,) and found.top.shape == found.top_tokens.shape == (0, 2)
