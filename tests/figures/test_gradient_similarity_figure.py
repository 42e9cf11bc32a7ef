import dataclasses

import numpy as np
import pytest
from figure_results import HARSH, similarity, similarity_panels, texts
from matplotlib.container import BarContainer
from matplotlib.transforms import IdentityTransform

from landscape_lab.figures import SimilarityPanel, gradient_similarity

LABELS = {0: "Head-0", 1: "Head-1", 8: "Tail-0", 9: HARSH}


def bars(axes):
    return [container for container in axes.containers if isinstance(container, BarContainer)]


def crosses(axes):
    return [line for line in axes.lines if line.get_marker() == "x"]


def test_a_bar_for_each_class_and_epoch_and_none_for_a_missing_class():
    a, b = gradient_similarity(similarity_panels(), LABELS).axes[:2]
    assert [len(container) for container in bars(a)] == [2, 2, 2, 2]
    assert [len(container) for container in bars(b)] == [2, 2, 2, 1]
    assert all(bar.get_height() > 0 for container in bars(b) for bar in container)
    assert not crosses(a)
    (cross,) = crosses(b)
    assert len(cross.get_xdata()) == 1
    assert not isinstance(cross.get_transform(), IdentityTransform)


def test_error_bars_are_the_standard_errors():
    panels = similarity_panels()
    axes = gradient_similarity(panels).axes[0]
    for j, container in enumerate(bars(axes)):
        _, _, (lines,) = container.errorbar.lines
        for segment, result in zip(lines.get_segments(), panels[0].similarities, strict=True):
            expected = [result.mean[j] - result.stderr[j], result.mean[j] + result.stderr[j]]
            np.testing.assert_allclose(segment[:, 1], expected)


def test_panels_share_the_y_axis_and_no_error_bar_is_cut():
    a, b = gradient_similarity(similarity_panels()).axes[:2]
    assert a.get_ylim() == b.get_ylim()
    assert a.get_ylim()[0] == 0
    assert a.get_ylim()[1] > 0.4 + 0.2 / 40**0.5


def test_negative_cosines_are_seen():
    result = similarity([0.3, -0.4, 0.2, 0.1], [40, 40, 30, 16])
    axes = gradient_similarity([SimilarityPanel("x", (0,), (result,))]).axes[0]
    assert axes.get_ylim()[0] < -0.4 - 0.2 / 40**0.5


def test_the_caption_counts_batches():
    words = texts(gradient_similarity(similarity_panels(), LABELS)).replace("\N{NO-BREAK SPACE}", " ")
    assert "of 40" in words
    assert "Head-0: 40" in words
    assert f"{HARSH}: 0–16".replace("$", r"\$") in words


def test_no_batch_at_all():
    result = similarity([float("nan")] * 4, [0, 0, 0, 0])
    axes = gradient_similarity([SimilarityPanel("x", (3,), (result,))]).axes[0]
    assert len(crosses(axes)) == 4


def test_refusals():
    panel = similarity_panels()[0]
    with pytest.raises(ValueError, match="at least one panel"):
        gradient_similarity([])
    with pytest.raises(ValueError, match="one result for each epoch"):
        gradient_similarity([dataclasses.replace(panel, epochs=(1, 2, 3))])
    other = dataclasses.replace(panel.similarities[0], classes=(0, 1, 2, 3))
    with pytest.raises(ValueError, match="same classes"):
        gradient_similarity([panel, SimilarityPanel("y", (0,), (other,))])
