"""Base losses against literal transcriptions of their formulas, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_cases import contrast_net

from landscape_lab.models import CosineClassifier, ProjectionHead
from landscape_lab.recipe import LossRecipe
from landscape_lab.training.losses import BalancedContrast, CrossEntropy, balanced_contrastive, base_loss, cross_entropy
from landscape_lab.training.workspace import Workspace

COUNTS = [50, 20, 7, 3]
TARGETS = torch.tensor([0, 0, 1, 0, 2, 0, 1])  # no sample of class 3
TEMPERATURE = 0.1


def unit_vectors(seed: int, count: int, length: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, length, generator=generator, dtype=torch.float64), dim=1)


def literal(features: Tensor, targets: list[int], prototypes: Tensor) -> list[float]:
    """Balanced supervised contrast, anchor by anchor and pair by pair."""
    vectors = [*features.tolist(), *prototypes.tolist()]
    labels = [*targets, *range(len(prototypes))]
    losses = []
    for i in range(len(targets)):
        similar = [sum(a * b for a, b in zip(vectors[i], other, strict=True)) / TEMPERATURE for other in vectors]
        positives = [j for j in range(len(labels)) if labels[j] == labels[i] and j != i]
        denominator = 0.0
        for c in set(labels):
            # the mean over the class's members other than the anchor
            members = [j for j in range(len(labels)) if labels[j] == c and j != i]
            denominator += sum(math.exp(similar[j]) for j in members) / len(members) if members else 0.0
        losses.append(sum(math.log(denominator) - similar[p] for p in positives) / len(positives))
    return losses


@pytest.mark.parametrize("targets", [TARGETS.repeat(2).tolist(), [3, 3], [0, 1, 2, 3, 0, 1, 2, 3]])
def test_contrast_equals_the_transcription(targets: list[int]) -> None:
    features, prototypes = unit_vectors(0, len(targets)), unit_vectors(1, 4)
    found = balanced_contrastive(features, torch.tensor(targets), prototypes, TEMPERATURE)
    assert found.tolist() == pytest.approx(literal(features, targets, prototypes), rel=1e-12)


def test_contrast_within_groups_is_that_of_the_groups_alone() -> None:
    targets, group = TARGETS.repeat(2), torch.tensor([0, 1, 1, 0])
    features, prototypes = unit_vectors(2, len(targets)), unit_vectors(3, 4)
    found = balanced_contrastive(features, targets, prototypes, TEMPERATURE, group)
    for number in (0, 1):
        chosen = (group[targets] == number).nonzero().squeeze(1)
        alone = literal(features[chosen], targets[chosen].tolist(), prototypes)
        assert found[chosen].tolist() == pytest.approx(alone, rel=1e-12)
    one = balanced_contrastive(features, targets, prototypes, TEMPERATURE, torch.zeros(4, dtype=torch.int64))
    assert torch.allclose(one, balanced_contrastive(features, targets, prototypes, TEMPERATURE), rtol=1e-13)


def test_contrast_has_the_derivative_of_its_values() -> None:
    features, prototypes = unit_vectors(4, 6).requires_grad_(), unit_vectors(5, 3).requires_grad_()
    targets = torch.tensor([0, 1, 0, 0, 1, 0])
    assert torch.autograd.gradcheck(
        lambda f, p: balanced_contrastive(f, targets, p, TEMPERATURE, torch.tensor([0, 1, 1])), (features, prototypes)
    )


def test_contrast_of_float32_neither_over_nor_underflows() -> None:
    features = torch.eye(4)[[0, 1, 0, 1]]
    losses = balanced_contrastive(features, torch.tensor([0, 1, 1, 0]), -torch.eye(4)[:2], 0.005)
    assert torch.isfinite(losses).all()


def test_logit_adjustment_by_hand() -> None:
    loss = base_loss(LossRecipe(logit_adjustment=1.5), COUNTS, torch.device("cpu"))
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.1]], dtype=torch.float64)
    shares = [count / sum(COUNTS) for count in COUNTS]
    raised = [z + 1.5 * math.log(p) for z, p in zip(logits[0].tolist(), shares, strict=True)]
    expected = math.log(sum(map(math.exp, raised))) - raised[3]
    assert isinstance(loss, CrossEntropy)
    outputs = loss.outputs(lambda _: logits, torch.zeros(1))  # type: ignore[arg-type]
    assert torch.equal(outputs.logits, logits)  # accuracy is that of the plain logits
    assert float(loss.losses(outputs, torch.tensor([3]))) == pytest.approx(expected, rel=1e-6)
    assert base_loss(LossRecipe(), COUNTS, torch.device("cpu")).adjustment is None


def test_a_class_without_images_keeps_a_finite_logit() -> None:
    loss = base_loss(LossRecipe(logit_adjustment=1.0), [5, 0, 3], torch.device("cpu"))
    assert loss.adjustment is not None
    assert torch.isfinite(loss.adjustment).all()


def test_bcl_is_the_sum_of_its_parts_over_the_right_views() -> None:
    model, adjustment = contrast_net(), torch.tensor([0.1, -0.2, 0.3, -1.0], dtype=torch.float64)
    views = torch.randn(3, len(TARGETS), 1, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    features = model.encoder(views.flatten(0, 1)).view(3, len(TARGETS), -1)
    logits = model.classifier(features[0]) + adjustment
    classified = torch.logsumexp(logits, 1) - logits[torch.arange(len(TARGETS)), TARGETS]
    contrasted = model.projection(torch.cat([features[1], features[2]]))
    anchors = literal(contrasted, TARGETS.repeat(2).tolist(), model.class_prototypes())

    base = BalancedContrast(adjustment, 2.0, 0.6, TEMPERATURE)
    outputs = base.outputs(model, views.flatten(0, 1))
    assert torch.allclose(outputs.logits, model.classifier(features[0]))
    losses = base.losses(outputs, TARGETS)
    expected = 2.0 * classified.mean() + 0.6 * sum(anchors) / len(anchors)
    assert float(losses.detach().mean()) == pytest.approx(float(expected.detach()), rel=1e-10)
    # each sample's share is that of its own two anchors
    each = 2.0 * classified + 0.3 * (torch.tensor(anchors[:7]) + torch.tensor(anchors[7:]))
    assert torch.allclose(losses, each, rtol=1e-6)


def test_the_first_view_has_a_forward_pass_of_its_own() -> None:
    model, base = contrast_net(), BalancedContrast(None, 2.0, 0.6)
    views = torch.randn(3 * len(TARGETS), 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    expected = 2.0 * cross_entropy(model(views[: len(TARGETS)]), TARGETS)
    assert torch.allclose(base.first_view(model, views, TARGETS), expected)


def test_projection_head_is_two_layers_on_the_unit_sphere() -> None:
    torch.manual_seed(0)
    head, inputs = ProjectionHead(4, 7, 3).double(), torch.randn(6, 4, dtype=torch.float64)
    hidden = inputs @ head[0].weight.T + head[0].bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    outputs = hidden.clamp_min(0) @ head[3].weight.T + head[3].bias
    expected = outputs / outputs.square().sum(1, keepdim=True).sqrt()
    assert torch.allclose(head(inputs), expected)
    assert sum(p.numel() for p in ProjectionHead(64, 512, 128).parameters()) == 99_968  # as BCL's on CIFAR


def test_prototypes_come_from_the_weights_as_they_are() -> None:
    model = contrast_net()
    assert isinstance(model.classifier, CosineClassifier)
    with torch.no_grad():
        model.classifier.weight.mul_(torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None])
    before = model.class_prototypes()
    assert torch.allclose(before, model.prototypes(model.classifier.weight))
    with torch.no_grad():
        model.classifier.weight.copy_(F.normalize(model.classifier.weight, dim=1))
    assert not torch.allclose(before, model.class_prototypes())


def test_the_parts_of_the_vector() -> None:
    work = Workspace(contrast_net())
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in work.model.named_children()}
    assert list(sizes) == ["encoder", "projection", "prototypes", "classifier"]
    assert work.part("encoder") == slice(0, sizes["encoder"])
    assert work.part("all-but-classifier") == slice(0, sum(sizes.values()) - sizes["classifier"])
    assert work.part("classifier").stop == work.part("all").stop == sum(sizes.values())


def test_bfloat16_passes_keep_float32_losses_and_gradients() -> None:
    def net() -> nn.Module:
        return contrast_net().float()

    generator = torch.Generator().manual_seed(5)
    views = torch.randn(3 * len(TARGETS), 1, 2, 3, generator=generator)
    found = {}
    for low in (False, True):
        work = Workspace(net(), BalancedContrast(None), bfloat16=low)  # type: ignore[arg-type]
        losses = work.losses(views, TARGETS)
        losses.mean().backward()
        assert losses.dtype == work.gradient.dtype == work.first_view_losses(views, TARGETS).dtype == torch.float32
        found[low] = losses.detach(), work.gradient.clone()
    assert not torch.equal(found[True][0], found[False][0])
    assert torch.allclose(found[True][0], found[False][0], rtol=0.1)
    assert float(F.cosine_similarity(found[True][1], found[False][1], dim=0)) > 0.98
