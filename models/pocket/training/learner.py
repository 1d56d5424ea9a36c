"""One training step, compiled, with gradients summed over the ring; and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from models.pocket.training.optimizer import Arrays, Optimizer, clip_by_norm, learning_rate_factor
from models.pocket.training.ring import Ring

CLIP_NORM = 1.0

BatchLoss = Callable[..., mx.array]
"""Summed loss of a batch of arrays; the last array has the weights whose sum divides the loss."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How long and how fast to train, and where to keep checkpoints."""

    steps: int
    muon_rate: float
    adam_rate: float
    decay: float
    checkpoint: Path


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a training, with a schedule of its own."""

    name: str
    steps: int
    muon_rate: float
    adam_rate: float
    decay: float
    batch_tokens: int
    """For all processes together, including padding."""

    def plan(self, work: Path) -> TrainingPlan:
        """Its plan, with the checkpoint in `work`."""
        return TrainingPlan(
            self.steps, self.muon_rate, self.adam_rate, self.decay, work / f"{self.name}.safetensors"
        )


class Learner:
    """A network, its optimizer, and the number of steps made."""

    def __init__(self, network: nn.Module, loss: BatchLoss, plan: TrainingPlan, ring: Ring) -> None:
        self.step = 0
        self._network, self._loss, self._plan, self._ring = network, loss, plan, ring
        self._optimizer = Optimizer(self._parameters(), plan.muon_rate, plan.adam_rate, plan.decay)
        self._gradients = mx.compile(self._flat_gradients)
        self._update = mx.compile(self._flat_update)
        if plan.checkpoint.exists():
            self._resume()

    @property
    def is_done(self) -> bool:
        """Whether all planned steps are done."""
        return self.step >= self._plan.steps

    def learn(self, *batch: mx.array) -> float:
        """One step on this process's share of a batch; the mean loss over all shares."""
        parameters = self._parameters()
        total = self._ring.sum(self._gradients(parameters, *batch))
        mx.eval(total)
        factor = mx.array(learning_rate_factor(self.step, self._plan.steps))
        state = self._optimizer.state
        after, state = self._update(parameters, state, total, mx.array(float(self.step)), factor)
        self._network.update(tree_unflatten(list(after.items())))
        self._optimizer.state = state
        mx.eval(after, state)
        self.step += 1
        return float(total[-2] / total[-1])

    def save(self) -> None:
        """Write the checkpoint, in the first process only."""
        if self._ring.rank:
            return
        arrays = {f"p.{name}": p for name, p in self._parameters().items()} | self._optimizer.state
        # MLX writes the file itself, so `replace_file` cannot.
        partial = self._plan.checkpoint.with_suffix(".partial.safetensors")
        mx.save_safetensors(str(partial), arrays, metadata={"step": str(self.step)})
        partial.replace(self._plan.checkpoint)

    def _resume(self) -> None:
        loaded: Any = mx.load(str(self._plan.checkpoint), return_metadata=True)
        arrays: Arrays = loaded[0]
        metadata: dict[str, str] = loaded[1]
        self.step = int(metadata["step"])
        self._network.update(tree_unflatten([(n[2:], a) for n, a in arrays.items() if n.startswith("p.")]))
        self._optimizer.state = {n: a for n, a in arrays.items() if not n.startswith("p.")}

    def _parameters(self) -> Arrays:
        return dict(tree_flatten(self._network.trainable_parameters()))

    def _flat_gradients(self, parameters: Arrays, *batch: mx.array) -> mx.array:
        """All gradients flattened, then the summed loss and the sum of its weights."""

        def loss_of(parameters: Arrays) -> mx.array:
            self._network.update(tree_unflatten(list(parameters.items())))
            return self._loss(*batch)

        loss, gradients = mx.value_and_grad(loss_of)(parameters)
        parts = [gradients[name].reshape(-1) for name in parameters]
        return mx.concatenate([*parts, loss[None], batch[-1].sum()[None]])

    def _flat_update(
        self, parameters: Arrays, state: Arrays, total: mx.array, step: mx.array, factor: mx.array
    ) -> tuple[Arrays, Arrays]:
        gradients, start = {}, 0
        for name, p in parameters.items():
            gradients[name] = (total[start : start + p.size] / total[-1]).reshape(p.shape)
            start += p.size
        return self._optimizer.update(parameters, clip_by_norm(gradients, CLIP_NORM), state, step, factor)
