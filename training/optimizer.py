"""Muon for matrices, AdamW for the rest, as one optimiser with one state.

Muon (Jordan et al., https://kellerjordan.github.io/posts/muon/) steps along the nearest
semi-orthogonal matrix of the momentum, so that every direction of a layer learns at one pace. On
little speech it reaches a CTC loss in about a third of AdamW's steps (docs/adr/0008). The update is
scaled to AdamW's usual size (Liu et al., arXiv 2502.16982), so both share one learning rate.
"""

from collections.abc import Iterable
from typing import Any

import torch

Tensor = Any

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic whose iteration drives singular values to ~1
_ITERATIONS = 5
_RMS_OF_ADAM = 0.2  # root mean square of an AdamW step, in learning rates


def orthogonalise(x_NMK: Tensor) -> Tensor:
    """Of each of N matrices the nearest semi-orthogonal one, to within a few tenths.

    Newton-Schulz iteration: products only, no singular value decomposition. Where one side is at
    least twice the other the iterates are followed on the small side: each is a polynomial of the
    M x M Gram matrix times the start, so the long side is multiplied twice and not ten times.
    """
    if x_NMK.shape[1] > x_NMK.shape[2]:
        return orthogonalise(x_NMK.mT).mT
    a, b, c = _COEFFICIENTS
    x_NMK = x_NMK / (x_NMK.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    if x_NMK.shape[2] < 2 * x_NMK.shape[1]:
        for _ in range(_ITERATIONS):
            gram_NMM = x_NMK @ x_NMK.mT
            bent_NMM = torch.baddbmm(gram_NMM, gram_NMM, gram_NMM, beta=b, alpha=c)
            x_NMK = torch.baddbmm(x_NMK, bent_NMM, x_NMK, beta=a)
        return x_NMK
    gram_NMM = x_NMK @ x_NMK.mT
    kept_MM = a * torch.eye(x_NMK.shape[1], dtype=x_NMK.dtype, device=x_NMK.device)
    product_NMM = kept_MM
    for _ in range(_ITERATIONS):
        factor_NMM = torch.baddbmm(gram_NMM, gram_NMM, gram_NMM, beta=b, alpha=c) + kept_MM
        product_NMM = factor_NMM if product_NMM is kept_MM else factor_NMM @ product_NMM
        gram_NMM = factor_NMM @ gram_NMM @ factor_NMM
    return product_NMM @ x_NMK


class Muon(torch.optim.Optimizer):
    """One learning rate, two rules: ``matrices`` by Muon, ``others`` by AdamW without decay."""

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
    ) -> None:
        groups = [
            {"params": list(matrices), "muon": True, "weight_decay": weight_decay},
            {"params": list(others), "muon": False, "weight_decay": 0.0},
        ]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; ``closure``, where given, computes the loss and the gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if not group["muon"]:
                for parameter in moved:
                    self._adam(parameter, self.state[parameter], group)
                continue
            for alike in _by_shape(moved):
                self._muon(alike, group)
        return loss

    def _muon(self, alike: list[Tensor], group: dict[str, Any]) -> None:
        """Matrices of one shape, made orthogonal together."""
        rate = group["lr"] * _RMS_OF_ADAM * max(alike[0].flatten(1).shape) ** 0.5
        ahead = [self._look_ahead(parameter, group["momentum"]) for parameter in alike]
        steps_NMK = orthogonalise(torch.stack(ahead))
        for parameter, step_MK in zip(alike, steps_NMK, strict=True):
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.sub_(step_MK.reshape(parameter.shape), alpha=rate)

    def _look_ahead(self, parameter: Tensor, kept: float) -> Tensor:
        """The gradient on Nesterov's momentum, as a matrix."""
        momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(parameter.grad, 1.0 - kept)
        return parameter.grad.lerp(momentum, kept).flatten(1)

    def _adam(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        gradient, (beta1, beta2) = parameter.grad, group["betas"]
        mean = state.setdefault("mean", torch.zeros_like(parameter))
        square = state.setdefault("square", torch.zeros_like(parameter))
        steps = state["steps"] = state.get("steps", 0) + 1
        mean.lerp_(gradient, 1.0 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        spread = (square / (1.0 - beta2**steps)).sqrt_().add_(1e-8)
        parameter.addcdiv_(mean, spread, value=-group["lr"] / (1.0 - beta1**steps))


def _by_shape(parameters: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[tuple[int, ...], list[Tensor]] = {}
    for parameter in parameters:
        groups.setdefault(tuple(parameter.shape), []).append(parameter)
    return list(groups.values())
