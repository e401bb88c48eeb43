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


def orthogonalise(matrix_MN: Tensor) -> Tensor:
    """The semi-orthogonal matrix nearest to ``matrix_MN``, to within a few tenths.

    Newton-Schulz iteration: products only, no singular value decomposition.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix_MN.shape[0] > matrix_MN.shape[1]
    x = matrix_MN.T if tall else matrix_MN
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


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
            update = self._muon if group["muon"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, self.state[parameter], group)
        return loss

    def _muon(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        gradient = parameter.grad
        momentum = state.setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(gradient, 1.0 - group["momentum"])
        ahead_MN = gradient.lerp(momentum, group["momentum"]).flatten(1)  # Nesterov's look ahead
        rate = group["lr"] * _RMS_OF_ADAM * max(ahead_MN.shape) ** 0.5
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        parameter.sub_(orthogonalise(ahead_MN).reshape(parameter.shape), alpha=rate)

    def _adam(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        gradient, (beta1, beta2) = parameter.grad, group["betas"]
        mean = state.setdefault("mean", torch.zeros_like(parameter))
        square = state.setdefault("square", torch.zeros_like(parameter))
        steps = state["steps"] = state.get("steps", 0) + 1
        mean.lerp_(gradient, 1.0 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        spread = (square / (1.0 - beta2**steps)).sqrt_().add_(1e-8)
        parameter.addcdiv_(mean, spread, value=-group["lr"] / (1.0 - beta1**steps))
