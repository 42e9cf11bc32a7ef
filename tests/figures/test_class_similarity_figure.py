import dataclasses

import numpy as np
import pytest
import torch
from figure_results import HARSH, similarity, texts

from landscape_lab.analysis.change_point import onset_of_decline
from landscape_lab.analysis.gradients import ClassSimilarity
from landscape_lab.figures import QualityPanel, SimilarityPanel, class_similarity, quality_curves

MEAN = torch.tensor([[1, 0.5, -0.4, torch.nan], [0.5, 1, 0, 0.1], [-0.4, 0, 1, 0.2], [torch.nan, 0.1, 0.2, 1]])
PRESENT = torch.tensor([[40, 40, 9, 0], [40, 40, 8, 5], [9, 8, 9, 2], [0, 5, 2, 5]])


def paired(mean=MEAN):
    between = ClassSimilarity(mean.double(), mean.double() * 0, PRESENT)
    return dataclasses.replace(similarity([0.3, 0.4, 0.2, 0.1], [40, 40, 9, 5]), between=between)


def test_a_square_for_each_epoch_with_its_numbers():
    figure = class_similarity([SimilarityPanel(HARSH, (0, 7), (paired(), paired()))], {0: HARSH})
    images = [image for axes in figure.axes for image in axes.get_images()]
    assert len(images) == 2
    for image in images:
        assert image.get_clim() == (-1, 1)
        np.testing.assert_allclose(image.get_array().filled(np.nan), MEAN.numpy(), rtol=1e-6)
    words = texts(figure)
    assert "−0.40" in words
    assert "0 to 40 of 40" in words
    assert "Grey: no batch holds both" in words


def test_many_classes_have_no_numbers_in_their_cells():
    count = 30
    mean, present = torch.eye(count).double(), torch.full((count, count), 3)
    one = dataclasses.replace(
        similarity([0.3] * 4, [3] * 4), classes=tuple(range(count)), between=ClassSimilarity(mean, mean, present)
    )
    figure = class_similarity([SimilarityPanel("x", (0,), (one,))])
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_xticks()) <= 25


def test_refusals():
    with pytest.raises(ValueError, match="at least one result"):
        class_similarity([])
    with pytest.raises(ValueError, match="between=True"):
        class_similarity([SimilarityPanel("x", (0,), (similarity([0.3] * 4, [3] * 4),))])


def test_onsets_are_marked_on_quality_curves():
    epochs = tuple(range(40))
    curve = tuple(3 * (1 - 2.7 ** (-t / 4)) - 0.04 * max(0, t - 20) + 0.01 * (-1) ** (t * t // 3) for t in epochs)
    onset = onset_of_decline(epochs, curve)
    assert onset.epoch is not None
    panel = QualityPanel("x", epochs, {"difference": {"tail": curve}})
    plain = quality_curves(panel)
    marked = quality_curves(dataclasses.replace(panel, onsets={"difference": {"tail": onset}}))
    assert len(marked.axes[0].lines) == len(plain.axes[0].lines) + 1
    assert list(marked.axes[0].lines[-1].get_xdata()) == [onset.epoch] * 2
    assert len(marked.axes[0].patches) == 1
    assert "95\N{NO-BREAK SPACE}% interval" in texts(marked).replace("\n", " ")
    rising = onset_of_decline(epochs, tuple(3 * (1 - 2.7 ** (-t / 4)) for t in epochs))
    calm = quality_curves(dataclasses.replace(panel, onsets={"difference": {"tail": rising}}))
    assert "No solid curve" in texts(calm).replace("\n", " ")
    assert not calm.axes[0].patches
