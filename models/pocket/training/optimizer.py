"""Muon for the matrices of the layers, Adam for tables, norms and scalars; one schedule for both."""

from __future__ import annotations

import math
from collections import defaultdict

import mlx.core as mx

Arrays = dict[str, mx.array]

MUON_MOMENTUM = 0.95
ADAM_BETAS = (0.9, 0.97)
ADAM_EPS = 1e-8
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
TABLES = ("embed_tokens", "centroids", "lm_head", "markov_")
"""In the names of matrices with a row per token or cluster, for Adam."""


def learning_rate_factor(step: int, steps: int, warm_up: int = 40, floor: float = 0.02) -> float:
    """Linear warm-up to 1, flat for the first third, then a cosine down to `floor`."""
    if step < warm_up:
        return (step + 1) / warm_up
    progress = max(0.0, (step / steps - 0.35) / 0.65)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def clip_by_norm(gradients: Arrays, largest: float) -> Arrays:
    """All gradients, scaled so that their joint norm is at most `largest`."""
    norm = mx.sqrt(sum((g.square().sum() for g in gradients.values()), mx.array(0.0)))
    scale = mx.minimum(1.0, largest / (norm + 1e-6))
    return {name: g * scale for name, g in gradients.items()}


class Optimizer:
    """Updates a flat {name: array}; its state is flat too, so that a checkpoint is one safetensors file."""

    def __init__(self, parameters: Arrays, muon_rate: float, adam_rate: float, decay: float) -> None:
        self._muon_rate = muon_rate
        self._adam_rate = adam_rate
        self._decay = decay
        self._stacks = _same_shapes(parameters)
        matrices = {name for names in self._stacks.values() for name in names}
        self._rest = [name for name in parameters if name not in matrices]
        self.state: Arrays = {f"m.{name}": mx.zeros_like(p) for name, p in parameters.items()}
        self.state |= {f"v.{name}": mx.zeros_like(parameters[name]) for name in self._rest}

    def update(
        self, parameters: Arrays, gradients: Arrays, state: Arrays, step: mx.array, factor: mx.array
    ) -> tuple[Arrays, Arrays]:
        """(parameters, state) after `step` (from 0), rates times `factor`. Pure: can be compiled."""
        after, new_state = dict(parameters), dict(state)
        for shape, names in self._stacks.items():
            gradient = mx.stack([gradients[name] for name in names])
            momentum = mx.stack([state[f"m.{name}"] for name in names]) * MUON_MOMENTUM + gradient
            direction = orthogonalised(gradient + MUON_MOMENTUM * momentum)
            rate = factor * (self._muon_rate * math.sqrt(max(1.0, shape[0] / shape[1])))
            kept = 1 - factor * (self._muon_rate * self._decay)
            for index, name in enumerate(names):
                new_state[f"m.{name}"] = momentum[index]
                after[name] = parameters[name] * kept - rate * direction[index]
        rate = factor * self._adam_rate
        first, second = (1 - mx.power(beta, step + 1) for beta in ADAM_BETAS)
        for name in self._rest:
            g = gradients[name]
            m = new_state[f"m.{name}"] = ADAM_BETAS[0] * state[f"m.{name}"] + (1 - ADAM_BETAS[0]) * g
            v = new_state[f"v.{name}"] = ADAM_BETAS[1] * state[f"v.{name}"] + (1 - ADAM_BETAS[1]) * g * g
            after[name] = parameters[name] - rate * (m / first) / (mx.sqrt(v / second) + ADAM_EPS)
        return after, new_state


def orthogonalised(stack: mx.array) -> mx.array:
    """Every matrix of (n, rows, columns) with its singular values brought near 1 (Newton-Schulz)."""
    a, b, c = NEWTON_SCHULZ
    x = stack.swapaxes(1, 2) if stack.shape[1] > stack.shape[2] else stack
    x = x / (mx.sqrt(x.square().sum((1, 2), keepdims=True)) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.swapaxes(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.swapaxes(1, 2) if stack.shape[1] > stack.shape[2] else x


def _same_shapes(parameters: Arrays) -> dict[tuple[int, ...], list[str]]:
    """Names of the layers' matrices by shape; tables stay with Adam."""
    stacks: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, p in parameters.items():
        if p.ndim == 2 and not any(table in name for table in TABLES):
            stacks[p.shape].append(name)
    return dict(stacks)
