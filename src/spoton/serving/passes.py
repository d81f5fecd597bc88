"""One pass through the model for inputs of many requests, with different prompts, lengths and labels.

Used only by the thread that runs the model. `batcher.py` decides which inputs run together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from spoton.models.choose_engine import engine_for
from spoton.models.engine import Batch
from spoton.models.frozen import FrozenModel
from spoton.models.packed_decoder import PackedEngine
from spoton.models.packed_rows import PromptCache
from spoton.models.token_scores import TokenScores
from spoton.serving.generation import Generation, StepwiseGeneration, WholeGeneration
from spoton.serving.jobs import GenerateJob, LabelJob, ServingJob, TextJob
from spoton.serving.prompt_cache import BoundedPromptCache


class Passes:
    """Runs jobs together.

    Args:
        model: The frozen model.
        cache_bytes: Bound on the cached keys and values of prompts.
    """

    def __init__(self, model: FrozenModel, cache_bytes: int) -> None:
        self.model = model
        self._engine = engine_for(model)
        # Only the packed engine reads prompts from a cache; the others run the prompt with every row.
        self._packed = self._engine if isinstance(self._engine, PackedEngine) else None
        compute = self._packed.remember if self._packed else _nothing_to_keep
        self.cache = BoundedPromptCache(compute, cache_bytes)
        if self._packed:  # its check runs the model, which only one thread may use later
            self._packed.reads_by_token([torch.zeros(0, model.dim)], [[model.end_token]])

    def reads_by_token(self, job: ServingJob, extra: int = 0) -> bool:
        """Returns whether single tokens of this input and of the `extra` tokens after it can be scored and sampled."""
        return self._packed is not None and self._packed.reads_by_token([job.value], [job.text], extra)

    @torch.no_grad()
    def label_scores(self, jobs: Sequence[LabelJob]) -> list[Tensor]:
        """Returns the log-likelihoods of each job's labels: `[C]` each, float32 on the CPU."""
        keys, values, batch = _together(jobs)
        if self._packed is not None:
            known = self.cache.get(list(zip(keys, values, strict=True)))
            scores = self._packed.row_label_scores(values, batch, [job.labels for job in jobs], known)
            return [row.float().cpu() for row in scores]
        score = self._engine.scorer(values)
        found: dict[int, Tensor] = {}
        for rows in _by_labels(jobs):
            part = Batch(
                [batch.inputs[row] for row in rows], [[]] * len(rows), [batch.rows[row] for row in rows]
            )
            scored = score(part, jobs[rows[0]].labels).float().cpu()
            found.update(zip(rows, scored, strict=True))
        return [found[row] for row in range(len(jobs))]

    @torch.no_grad()
    def token_scores(self, jobs: Sequence[TextJob]) -> list[TokenScores]:
        """Returns the likelihoods of each input's tokens."""
        keys, values, batch = _together(jobs)
        assert self._packed is not None  # the service checks `reads_by_token` first
        known = self.cache.get(list(zip(keys, values, strict=True)))
        found = self._packed.token_scores(values, batch, known, max(job.top for job in jobs))
        # Each request gets as many as it asks for, whatever the others in the pass ask for.
        return [
            replace(one, top=one.top[:, : job.top], top_tokens=one.top_tokens[:, : job.top])
            for one, job in zip(found, jobs, strict=True)
        ]

    @torch.no_grad()
    def generations(self, jobs: Sequence[GenerateJob]) -> list[Generation]:
        """Starts continuations, which grow together where the engine allows it.

        A job that can be sampled is never continued greedily because of the others: if the longest prompt, the longest
        text and the longest continuation do not fit together, every such job runs alone.
        """
        able = [self.reads_by_token(job, job.max_tokens) for job in jobs]
        by_token = [job for job, can in zip(jobs, able, strict=True) if can]
        whole = [job for job, can in zip(jobs, able, strict=True) if not can]
        groups = [by_token] if by_token and self._read_together(by_token) else [[job] for job in by_token]
        found: list[Generation] = [self._stepwise(group) for group in groups]
        if whole:
            _, values, batch = _together(whole)
            found.append(WholeGeneration(self._engine.generator(values), batch, whole))
        return found

    def _read_together(self, jobs: Sequence[GenerateJob]) -> bool:
        assert self._packed is not None
        _, values, batch = _together(jobs)
        return self._packed.reads_by_token(values, batch.inputs, max(job.max_tokens for job in jobs))

    def _stepwise(self, jobs: Sequence[GenerateJob]) -> StepwiseGeneration:
        keys, values, batch = _together(jobs)
        known = self.cache.get(list(zip(keys, values, strict=True)))
        return StepwiseGeneration(self.model, known, batch, jobs)


def _together(jobs: Sequence[ServingJob]) -> tuple[list[str], list[Tensor], Batch]:
    """Returns the distinct prompts of some jobs, and their inputs with the index of each one's prompt."""
    numbers: dict[str, int] = {}
    values: list[Tensor] = []
    for job in jobs:
        if numbers.setdefault(job.key, len(values)) == len(values):
            values.append(job.value)
    batch = Batch([job.text for job in jobs], [[]] * len(jobs), [numbers[job.key] for job in jobs])
    return list(numbers), values, batch


def _by_labels(jobs: Sequence[LabelJob]) -> list[list[int]]:
    """Groups jobs with the same labels, which engines other than the packed one score together."""
    groups: dict[object, list[int]] = {}
    for row, job in enumerate(jobs):
        groups.setdefault(tuple(map(tuple, job.labels)), []).append(row)
    return list(groups.values())


def _nothing_to_keep(prompts: Sequence[Tensor]) -> PromptCache:
    raise AssertionError(f"no cache for {len(prompts)} prompts: this engine has none")
