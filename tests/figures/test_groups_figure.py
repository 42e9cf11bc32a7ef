import numpy as np
import pytest
from figure_results import HARSH, texts

from landscape_lab.analysis.partitions import explained
from landscape_lab.figures import GroupsPanel, groups
from landscape_lab.figures.groups import _followed

LABELS = np.array([[0, 0, 1, 1, 2], [2, 2, 0, 0, 0], [1, 1, 1, 0, 0]])


def panel(labels=LABELS, classes=("a", "b", "c", "d", HARSH)):
    test = explained([1, 2, 6, 7, 8], [0, 0, 1, 1, 1]).test
    return GroupsPanel("run", (5, 15, 25), labels, classes, {"explains best epoch": test}, {"explains best epoch": 0.2})


def test_groups_keep_their_number_where_they_share_most_classes():
    assert _followed(LABELS).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]


def test_a_class_without_group_stays_without():
    assert _followed(np.array([[0, -1, 1], [1, -1, 0]])).tolist() == [[0, -1, 1], [0, -1, 1]]


def test_the_picture_says_what_it_shows():
    figure = groups(panel())
    words = texts(figure)
    assert HARSH.replace("$", r"\$") in words
    assert "explains best epoch" in words
    assert "p = 0.2" in words
    assert "2 groups at the end, of 3, 2 classes" in words.replace("\n", " ")
    assert "10 groupings, all there are" in words.replace("\n", " ")
    left, right = figure.axes[:2]
    assert left.images[0].get_array().shape == (5, 3, 3)
    (bar,) = right.patches
    assert bar.get_x() + bar.get_width() == pytest.approx(1)


def test_a_hundred_classes_are_not_named_one_by_one():
    labels = np.arange(300).reshape(3, 100) % 4
    figure = groups(panel(labels, tuple(map(str, range(100)))))
    assert "100 classes" in texts(figure)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="labels for each class"):
        groups(panel(LABELS[:, :3]))
