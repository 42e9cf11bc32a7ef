"""Grouped Sharpness Aware: each group perturbed along its own part of the gradient (Eq. 11 to 15)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape_lab.parameters import frozen_batch_statistics
from landscape_lab.recipe import GsaRecipe
from landscape_lab.training.sam import ascent
from landscape_lab.training.workspace import Workspace

__all__ = ["GroupedSharpness", "Perturbation", "orthogonal_parts", "projections", "radii"]

DEGENERATE = 1e-3
"""Below this ‖ĝ‖/‖g‖ the orthogonal part is rounding noise; the group's own gradient is used (reading 23)."""


def projections(group_gradients: Tensor, global_gradient: Tensor) -> Tensor:
    """``⟨g_g, g⟩ / ⟨g, g⟩ · g``, what Eq. 12 removes: ``(G, P)`` and ``(P,)`` to ``(G, P)``."""
    squared = (global_gradient @ global_gradient).clamp_min(torch.finfo(global_gradient.dtype).tiny)
    return torch.outer(group_gradients @ global_gradient / squared, global_gradient)


def orthogonal_parts(group_gradients: Tensor, removed: Tensor) -> Tensor:
    """``ĝ_g = g_g - removed_g`` (Eq. 12), or ``g_g`` itself where next to nothing is left of it.

    With one group in the batch the global gradient *is* the group's, and Eq. 12 gives exactly zero.
    """
    rest = group_gradients - removed
    degenerate = rest.norm(dim=1) < DEGENERATE * group_gradients.norm(dim=1)
    return torch.where(degenerate[:, None], group_gradients, rest)


def radii(theta: Tensor, directions: Tensor, sizes: Tensor) -> Tensor:
    """Optimal radius of each group (Eq. 13).

    ``ρ*_g = (‖θ‖ / (2 ‖ĝ_g‖))^{1/2} d^{-1/4} (|G_g| - 1)^{-1/4}``

    Args:
        theta: ``(d,)``, the parameters that are perturbed.
        directions: ``ĝ``, ``(G, d)``.
        sizes: ``|G_g|``, ``(G,)``; taken as at least 2.

    Returns:
        ``(G,)``.
    """
    norms = directions.norm(dim=1).clamp_min(torch.finfo(directions.dtype).tiny)
    rest = (sizes.clamp_min(2) - 1).to(theta.dtype)
    scale = float(theta.numel()) ** -0.25
    result: Tensor = (theta.norm() / (2 * norms)).sqrt() * scale * rest**-0.25
    return result


@dataclass
class Perturbation:
    """What the steps did to each group, summed on the device.

    Attributes:
        rho: sums of Z ρ* (clamped), ``(G,)``.
        norm: sums of ‖ε‖, ``(G,)``.
        steps: number of steps in which the group was present, ``(G,)``.
    """

    rho: Tensor
    norm: Tensor
    steps: Tensor


class GroupedSharpness:
    """The GSA step and its state.

    Args:
        work: model in training mode.
        recipe: the readings.
        class_group: group of each class, ``(C,)`` int64 on the model's device.
        sizes: ``|G_g|`` as counted by the recipe, length G.
        ascend: ``orthogonal`` (Eq. 12) or ``projection``: only what Eq. 12 removes (GSA-proj of Table 5).
        ema: moving average of the batch gradient ``(P,)``, to go on from.
    """

    def __init__(
        self,
        work: Workspace,
        recipe: GsaRecipe,
        class_group: Tensor,
        sizes: Sequence[int],
        *,
        ascend: str = "orthogonal",
        ema: Tensor | None = None,
    ) -> None:
        self.work = work
        self.recipe = recipe
        self.class_group = class_group
        self.sizes = torch.tensor(sizes, device=class_group.device)
        self.ascend = ascend
        self.ema = ema
        zeros = torch.zeros(len(sizes), device=class_group.device)
        self.log = Perturbation(zeros.clone(), zeros.clone(), zeros.clone())

    def step(self, images: Tensor, targets: Tensor, group_counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Leave the gradient of ``Σ_g w_g L_g(θ + ε_g)`` (Eq. 15, 16) in ``work.gradient``.

        Args:
            images: ``(B, C, H, W)`` float.
            targets: ``(B,)`` int64.
            group_counts: samples of each group in the batch, known beforehand so that nothing is read back
                from the device; absent groups are left out.

        Returns:
            The samples' clean losses ``(B,)`` and logits ``(B, C)``, detached.
        """
        work, where = self.work, self.work.part(self.recipe.perturb)
        present = [g for g, count in enumerate(group_counts) if count]
        index = torch.tensor(present, device=targets.device)
        logits = work.model(images)
        losses = work.loss(logits, targets)
        # The whole batch goes through the network and the loss is masked (reading 32): a small group
        # by itself would wreck the BatchNorm statistics.
        members = (self.class_group[targets] == index[:, None]).to(losses.dtype)  # (present, B)
        means = members / members.sum(1, keepdim=True)
        gradients = self._group_gradients(losses, means)
        shares = members.mean(1)
        directions = self._directions(gradients, shares)[:, where]
        rho_star = radii(work.theta[where], directions, self.sizes[index])
        rho = (rho_star * self.recipe.radius_scale).clamp(self.recipe.rho_min, self.recipe.rho_max)
        # Eq. 14, with Z ρ* in place of ρ* (reading 27). Nothing here is differentiated (reading 24).
        radius = work.theta[where].numel() ** 0.5 * rho
        eps = ascent(directions, work.theta[where], radius[:, None], self.recipe.adaptive)

        self.log.rho.index_add_(0, index, rho)
        self.log.norm.index_add_(0, index, eps.norm(dim=1))
        self.log.steps.index_add_(0, index, torch.ones_like(rho))

        weights = shares if self.recipe.weight == "share" else torch.ones_like(shares)
        origin = work.theta.clone()
        work.gradient.zero_()
        with frozen_batch_statistics(work.model):
            if self.recipe.passes == "merged":
                passes = [(shares @ eps, weights @ means)]
            else:
                passes = [(eps[i], weights[i] * means[i]) for i in range(len(present))]
            for perturbation, cotangent in passes:
                work.move_to(origin, perturbation, where)
                work.loss(work.model(images), targets).backward(cotangent)
        work.theta.copy_(origin)
        if self.recipe.regulariser == "constant-rho":
            work.gradient[where] += self._regulariser(origin[where], rho_star, weights, index)
        return losses.detach(), logits.detach()

    def read_log(self) -> dict[str, list[float]]:
        """Mean radius Z ρ* and ‖ε‖ of each group over the steps in which it was present, and reset.

        Reads back from the device; call it once an epoch.
        """
        seen = self.log.steps.clamp_min(1)
        result = {
            "rho": (self.log.rho / seen).tolist(),
            "epsilon_norm": (self.log.norm / seen).tolist(),
            "steps": self.log.steps.tolist(),
        }
        for total in (self.log.rho, self.log.norm, self.log.steps):
            total.zero_()
        return result

    def _group_gradients(self, losses: Tensor, means: Tensor) -> Tensor:
        """Gradient of each present group's mean loss (Eq. 11), ``(present, P)``."""
        rows = torch.empty(len(means), self.work.space.size, device=losses.device, dtype=losses.dtype)
        for row, (result, cotangent) in enumerate(zip(rows, means, strict=True)):
            self.work.gradient.zero_()
            losses.backward(cotangent, retain_graph=row + 1 < len(means))
            result.copy_(self.work.gradient)
        return rows

    def _directions(self, gradients: Tensor, shares: Tensor) -> Tensor:
        """``ĝ`` of each present group (Eq. 12), ``(present, P)``."""
        batch = shares @ gradients  # the batch's gradient is the weighted sum of its groups': no pass of its own
        reading, decay = self.recipe.global_gradient, self.recipe.ema_decay
        if reading == "project-batch":
            removed = projections(gradients, batch)
        else:
            # F-SAM (Li et al., CVPR 2024) subtracts the average before this batch enters it, at first nothing.
            before = torch.zeros_like(batch) if self.ema is None else self.ema
            after = batch.clone() if self.ema is None else decay * self.ema + (1 - decay) * batch
            removed = before.expand_as(gradients) if reading == "subtract-ema" else projections(gradients, after)
            self.ema = after
        return removed if self.ascend == "projection" else orthogonal_parts(gradients, removed)

    def _regulariser(self, theta: Tensor, rho_star: Tensor, weights: Tensor, index: Tensor) -> Tensor:
        """Gradient of ``Σ_g w_g ‖θ‖ / (2 (|G_g| - 1)^{1/2} ρ*_g)`` (Eq. 15) with ρ* held constant."""
        rest = (self.sizes[index].clamp_min(2) - 1).to(theta.dtype).sqrt()
        pull: Tensor = (weights / (2 * rest * rho_star)).sum() * theta / theta.norm()
        return pull
