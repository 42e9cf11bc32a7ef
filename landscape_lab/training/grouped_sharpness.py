"""The GSA step (Eq. 11 to 16): exact, and in cheaper forms."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape_lab.parameters import frozen_batch_statistics
from landscape_lab.recipe import GsaRecipe
from landscape_lab.training.erm import erm_step
from landscape_lab.training.gsa import accumulated_parts, moving_average, orthogonal_parts, projections, radii
from landscape_lab.training.sam import ascent
from landscape_lab.training.workspace import Workspace

__all__ = ["GroupedSharpness", "Perturbation"]


@dataclass
class Perturbation:
    """What the steps did to each group, summed on the device.

    Attributes:
        rho: sums of Z ρ* (clamped), ``(G,)``.
        norm: sums of ‖ε‖, ``(G,)``.
        steps: number of steps in which the group was perturbed, ``(G,)``.
        difference: sums of ‖∇L_g(θ + ε_g) - ∇L_g(θ)‖, ``(G,)``; of ``stochastic`` steps only.
    """

    rho: Tensor
    norm: Tensor
    steps: Tensor
    difference: Tensor

    @classmethod
    def zeros(cls, groups: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Perturbation:
        """Of no step yet."""
        return cls(*torch.zeros(4, groups, device=device, dtype=dtype).unbind())


@dataclass(frozen=True, eq=False)
class _Batch:
    """A batch, and which of its samples belong to which present group.

    Attributes:
        images: ``(views B, C, H, W)``.
        targets: ``(B,)``.
        present: the groups with samples in the batch, ascending.
        index: the same on the device.
        means: a row for each of them whose product with the losses is the group's mean loss, ``(present, B)``.
        shares: n_g / B, ``(present,)``.
        host_shares: the same, known without reading back from the device.
    """

    images: Tensor
    targets: Tensor
    present: list[int]
    index: Tensor
    means: Tensor
    shares: Tensor
    host_shares: list[float]


@dataclass(frozen=True, eq=False)
class _Gradients:
    """Gradients at θ.

    Attributes:
        rows: those of which ĝ is made: of each present group, of the drawn one, or one that is the sum over groups.
        mean: of the batch's mean loss, ``(P,)``; ``None`` where Eq. 12 is not used.
        plain: of ``Σ_g w_g L_g``, ``(P,)``, where a cheap form needs it.
        drawn: of the drawn group's mean loss, ``(P,)``.
    """

    rows: Tensor
    mean: Tensor | None
    plain: Tensor | None
    drawn: Tensor | None


class GroupedSharpness:
    """The GSA step and its state.

    Args:
        work: model in training mode.
        recipe: the readings.
        class_group: group of each class, ``(C,)`` int64 on the model's device.
        sizes: ``|G_g|`` as counted by the recipe, length G.
        ascend: ``orthogonal`` (Eq. 12) or ``projection``: only what Eq. 12 removes (GSA-proj of Table 5).
        ema: moving average of the batch gradient ``(P,)``, or of each group's ``(G, P)``, to go on from.
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
        self.log = Perturbation.zeros(len(sizes), class_group.device)
        self._correction: Tensor | None = None
        self._perturbation: Tensor | None = None
        self._indices: dict[tuple[int, ...], Tensor] = {}

    def step(
        self,
        images: Tensor,
        targets: Tensor,
        group_counts: Sequence[int],
        *,
        number: int = 0,
        draw: float = 0.0,
        share: float = 1.0,
        pull: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Leave the gradient of ``Σ_g w_g L_g(θ + ε_g)`` (Eq. 15, 16), or its cheap form, in ``work.gradient``.

        Args:
            images: ``(views B, C, H, W)`` float.
            targets: ``(B,)`` int64.
            group_counts: samples of each group in the batch, known beforehand so that nothing is read back
                from the device; absent groups are left out.
            number: of the step in its epoch; the first one is always perturbed.
            draw: uniform on [0, 1); decides which group ``stochastic`` takes.
            share: α of Eq. 16, and
            pull: the penalty's gradient ``(P,)``: both enter the ascent of ``accumulated-ema`` only.

        Returns:
            The samples' clean losses ``(B,)`` and logits ``(B, C)``, detached.
        """
        if number % self.recipe.every:
            return self._step_between(images, targets)
        work = self.work
        batch = self._masks(images, targets, group_counts)
        weights = batch.shares if self.recipe.weight == "share" else torch.ones_like(batch.shares)
        chosen, factor = self._drawn(batch, draw) if self.recipe.passes == "stochastic" else (None, 1.0)

        losses, logits, gradients = self._clean(batch, weights, chosen, share, pull)
        taken = slice(None) if chosen is None else slice(chosen, chosen + 1)
        eps, rho_star = self._perturbations(batch, gradients, taken)

        origin = work.theta.clone()
        where = work.part(self.recipe.perturb)
        if chosen is None:
            work.gradient.zero_()
            passes = list(zip(eps, weights[:, None] * batch.means, strict=True))
            if self.recipe.passes == "merged":
                self._perturbation = batch.shares @ eps
                passes = [(self._perturbation, weights @ batch.means)]
        else:
            # With group g drawn with probability p_g, the mean of this is Σ_g w_g ∇L_g(θ + ε_g), whatever p:
            # ∇(Σ w_g L_g)(θ) + w_g / p_g · (∇L_g(θ + ε_g) - ∇L_g(θ)).
            assert gradients.plain is not None
            assert gradients.drawn is not None
            torch.sub(gradients.plain, gradients.drawn, alpha=factor, out=work.gradient)
            passes = [(eps[0], factor * batch.means[chosen])]
        with frozen_batch_statistics(work.model):
            for perturbation, cotangent in passes:
                work.move_to(origin, perturbation, where)
                work.losses(images, targets).backward(cotangent)
        work.theta.copy_(origin)
        if chosen is not None:
            assert gradients.plain is not None
            length = (work.gradient - gradients.plain).norm() / factor
            self.log.difference.index_add_(0, batch.index[taken], length[None])
        if self.recipe.regulariser == "constant-rho":
            scale = weights if chosen is None else torch.full_like(weights[taken], factor)
            work.gradient[where] += self._regulariser(origin[where], rho_star, scale, batch.index[taken])
        if self._reuses:
            assert gradients.plain is not None
            self._correction = work.gradient - gradients.plain
        return losses, logits

    def read_log(self) -> dict[str, list[float]]:
        """Mean radius Z ρ* and ‖ε‖ of each group over the steps in which it was perturbed, and reset.

        Reads back from the device; call it once an epoch.
        """
        seen = self.log.steps.clamp_min(1)
        result = {
            "rho": (self.log.rho / seen).tolist(),
            "epsilon_norm": (self.log.norm / seen).tolist(),
            "steps": self.log.steps.tolist(),
        }
        if self.recipe.passes == "stochastic":
            result["difference_norm"] = (self.log.difference / seen).tolist()
        for total in (self.log.rho, self.log.norm, self.log.steps, self.log.difference):
            total.zero_()
        return result

    # -- parts of a step -------------------------------------------------------------------------------------

    @property
    def _reuses(self) -> bool:
        return self.recipe.every > 1 and self.recipe.between == "reuse"

    def _step_between(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A step without a perturbation of its own."""
        work = self.work
        if self.recipe.between == "hold":
            assert self._perturbation is not None, "the first step of an epoch is number 0"
            origin = work.theta.clone()
            work.move_to(origin, self._perturbation, work.part(self.recipe.perturb))
            losses, logits = erm_step(work, images, targets)
            work.theta.copy_(origin)
            return losses, logits
        losses, logits = erm_step(work, images, targets)
        if self._reuses:  # as LookSAM (Liu et al., CVPR 2022) reuses SAM's
            assert self._correction is not None, "the first step of an epoch is number 0"
            work.gradient += self._correction
        return losses, logits

    def _masks(self, images: Tensor, targets: Tensor, group_counts: Sequence[int]) -> _Batch:
        # The whole batch goes through the network and the loss is masked (reading 32): a small group by itself
        # would wreck the BatchNorm statistics.
        present = [g for g, count in enumerate(group_counts) if count]
        key = tuple(present)
        if key not in self._indices:  # a copy to the device waits for it: once for each combination of groups
            self._indices[key] = torch.tensor(present, device=targets.device)
        index = self._indices[key]
        members = (self.class_group[targets] == index[:, None]).to(self.work.theta.dtype)
        shares = [group_counts[g] / len(targets) for g in present]
        means = members / members.sum(1, keepdim=True)
        return _Batch(images, targets, present, index, means, members.mean(1), shares)

    def _drawn(self, batch: _Batch, draw: float) -> tuple[int, float]:
        """The position of the drawn group among those present, and w_g / p_g; p_g is in proportion to w_g.

        Weighing the chances by the lengths of the groups' differences as well, which would make the variance least,
        gained nothing that five seeds could show.
        """
        weights = batch.host_shares if self.recipe.weight == "share" else [1.0] * len(batch.present)
        ends = list(itertools.accumulate(weights))
        return min(bisect.bisect_right(ends, draw * ends[-1]), len(ends) - 1), ends[-1]

    def _clean(
        self, batch: _Batch, weights: Tensor, chosen: int | None, share: float, pull: Tensor | None
    ) -> tuple[Tensor, Tensor, _Gradients]:
        """The passes at θ: losses and logits, detached, and the gradients that the step is made of."""
        work, recipe = self.work, self.recipe
        several = work.base.views > 1
        first = several and recipe.ascent_views == "first"
        within = several and not first and recipe.contrast == "within-group"
        accumulated = recipe.global_gradient == "accumulated-ema"
        # The plain gradient is a sum of the groups' rows where all these are taken from the same losses.
        summed = chosen is None and not (first or within or accumulated)
        apart = (chosen is not None or self._reuses) and not summed
        with torch.set_grad_enabled(not first or apart):
            outputs = work.outputs(batch.images)
            losses = work.base.losses(outputs, batch.targets)
        plain = self._gradient(losses, weights @ batch.means) if apart else None
        drawn = None if chosen is None else self._gradient(losses, batch.means[chosen])
        ascending = losses
        if first:
            with frozen_batch_statistics(work.model):
                ascending = work.first_view_losses(batch.images, batch.targets)
        elif within:
            ascending = work.base.losses(outputs, batch.targets, self.class_group)

        mean = None
        if accumulated:
            total = self._gradient(ascending, batch.means.sum(0))
            rows = (total if pull is None else share * total + (1 - share) * pull)[None]
        elif chosen is None:
            rows = torch.stack([self._gradient(ascending, one) for one in batch.means])
            mean = batch.shares @ rows  # the batch's gradient is the weighted sum of its groups': it costs no pass
            plain = weights @ rows if summed else plain
        else:
            rows = (self._gradient(ascending, batch.means[chosen]) if within else drawn)[None]  # type: ignore[index]
            same = recipe.weight == "share" and not within
            mean = plain if same else self._gradient(ascending, batch.shares @ batch.means)
        return losses.detach(), outputs.logits.detach(), _Gradients(rows, mean, plain, drawn)

    def _gradient(self, losses: Tensor, cotangent: Tensor) -> Tensor:
        self.work.gradient.zero_()
        losses.backward(cotangent, retain_graph=True)
        return self.work.gradient.clone()

    def _perturbations(self, batch: _Batch, gradients: _Gradients, taken: slice) -> tuple[Tensor, Tensor]:
        """ε of the taken groups ``(taken, d)`` by Eq. 12 to 14, and their ρ* ``(taken,)``."""
        recipe, where = self.recipe, self.work.part(self.recipe.perturb)
        index, theta = batch.index[taken], self.work.theta[where]
        directions = self._directions(batch, gradients)[:, where]
        rho_star = radii(theta, directions, self.sizes[index])
        rho = (rho_star * recipe.radius_scale).clamp(recipe.rho_min, recipe.rho_max)
        # Eq. 14, with Z ρ* in place of ρ* (reading 27). Nothing here is differentiated (reading 24).
        radius = theta.numel() ** 0.5 * rho
        eps = ascent(directions, theta, radius[:, None], recipe.adaptive)
        self.log.rho.index_add_(0, index, rho)
        self.log.norm.index_add_(0, index, eps.norm(dim=1))
        self.log.steps.index_add_(0, index, torch.ones_like(rho))
        return eps, rho_star

    def _directions(self, batch: _Batch, gradients: _Gradients) -> Tensor:
        """``ĝ`` (Eq. 12) of each of the given gradients, ``(·, P)``."""
        rows, mean = gradients.rows, gradients.mean
        reading, decay = self.recipe.global_gradient, self.recipe.ema_decay
        if mean is None:
            if self.ema is None or self.ema.shape != (len(self.sizes), rows.shape[1]):
                self.ema = torch.full((len(self.sizes), rows.shape[1]), torch.nan).to(rows)
            directions, self.ema = accumulated_parts(rows[0], self.ema, batch.present, decay)
            return directions
        if reading == "project-batch":
            removed = projections(rows, mean)
        else:
            # F-SAM (Li et al., CVPR 2024) subtracts the average before this batch enters it, at first nothing.
            before = torch.full_like(mean, torch.nan) if self.ema is None else self.ema
            self.ema = moving_average(before, mean, decay)
            subtracts = reading == "subtract-ema"
            removed = before.nan_to_num(0.0).expand_as(rows) if subtracts else projections(rows, self.ema)
        return removed if self.ascend == "projection" else orthogonal_parts(rows, removed)

    def _regulariser(self, theta: Tensor, rho_star: Tensor, weights: Tensor, index: Tensor) -> Tensor:
        """Gradient of ``Σ_g w_g ‖θ‖ / (2 (|G_g| - 1)^{1/2} ρ*_g)`` (Eq. 15) with ρ* held constant."""
        rest = (self.sizes[index].clamp_min(2) - 1).to(theta.dtype).sqrt()
        pull: Tensor = (weights / (2 * rest * rho_star)).sum() * theta / theta.norm()
        return pull
