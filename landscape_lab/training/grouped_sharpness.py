"""The GSA step (Eq. 11 to 16): exact, and in cheaper forms."""

from __future__ import annotations

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
    """

    rho: Tensor
    norm: Tensor
    steps: Tensor


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
        zeros = torch.zeros(len(sizes), device=class_group.device)
        self.log = Perturbation(zeros.clone(), zeros.clone(), zeros.clone())
        self._correction: Tensor | None = None

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
        chosen = self._drawn(batch, draw) if self.recipe.passes == "stochastic" else None

        losses, logits, gradients = self._clean(batch, weights, chosen, share, pull)
        taken = slice(None) if chosen is None else slice(chosen, chosen + 1)
        eps, rho_star = self._perturbations(batch, gradients, taken)

        origin = work.theta.clone()
        where = work.part(self.recipe.perturb)
        total = float(len(batch.present)) if self.recipe.weight == "one" else 1.0
        if chosen is None:
            work.gradient.zero_()
            passes = list(zip(eps, weights[:, None] * batch.means, strict=True))
            if self.recipe.passes == "merged":
                passes = [(batch.shares @ eps, weights @ batch.means)]
        else:
            # Drawn with probability w_g / Σ w, so this has the mean Σ_g w_g ∇L_g(θ + ε_g) whatever the draw:
            # ∇(Σ w_g L_g)(θ) + Σ w · (∇L_g(θ + ε_g) - ∇L_g(θ)).
            assert gradients.plain is not None
            assert gradients.drawn is not None
            torch.sub(gradients.plain, gradients.drawn, alpha=total, out=work.gradient)
            passes = [(eps[0], total * batch.means[chosen])]
        with frozen_batch_statistics(work.model):
            for perturbation, cotangent in passes:
                work.move_to(origin, perturbation, where)
                work.losses(images, targets).backward(cotangent)
        work.theta.copy_(origin)
        if self.recipe.regulariser == "constant-rho":
            scale = weights if chosen is None else torch.full_like(weights[taken], total)
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
        for total in (self.log.rho, self.log.norm, self.log.steps):
            total.zero_()
        return result

    # -- parts of a step -------------------------------------------------------------------------------------

    @property
    def _reuses(self) -> bool:
        return self.recipe.every > 1 and self.recipe.between == "reuse"

    def _step_between(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A plain step, with the last perturbed step's difference to a plain one (as LookSAM reuses SAM's)."""
        losses, logits = erm_step(self.work, images, targets)
        if self._reuses:
            assert self._correction is not None, "the first step of an epoch is number 0"
            self.work.gradient += self._correction
        return losses, logits

    def _masks(self, images: Tensor, targets: Tensor, group_counts: Sequence[int]) -> _Batch:
        # The whole batch goes through the network and the loss is masked (reading 32): a small group by itself
        # would wreck the BatchNorm statistics.
        present = [g for g, count in enumerate(group_counts) if count]
        index = torch.tensor(present, device=targets.device)
        members = (self.class_group[targets] == index[:, None]).to(self.work.theta.dtype)
        shares = [group_counts[g] / len(targets) for g in present]
        means = members / members.sum(1, keepdim=True)
        return _Batch(images, targets, present, index, means, members.mean(1), shares)

    def _drawn(self, batch: _Batch, draw: float) -> int:
        """The position of the drawn group among those present."""
        chances = batch.host_shares if self.recipe.weight == "share" else [1 / len(batch.present)] * len(batch.present)
        passed = 0.0
        for position, chance in enumerate(chances):
            passed += chance
            if draw < passed:
                return position
        return len(chances) - 1

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
