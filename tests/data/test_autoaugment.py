"""AutoAugment: each operation at each level against Pillow, and what is drawn, against the published table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pillow_cases import autoaugmented, by_pillow, levels, picture, pictures
from scipy import stats

from landscape_lab.data.autoaugment import (
    OPERATIONS,
    POLICY,
    apply_operation,
    autoaugment,
    draw_policy,
    magnitude_of,
)

N = 10_000
SIGNED = OPERATIONS[:9]
RARE = 1e-4
"""A p-value below which a test fails; seeds are fixed, so it either always does or never."""

RANGES = {
    "shear-x": np.linspace(0, 0.3, 10),
    "shear-y": np.linspace(0, 0.3, 10),
    "translate-x": np.linspace(0, 150 / 331, 10),
    "translate-y": np.linspace(0, 150 / 331, 10),
    "rotate": np.linspace(0, 30, 10),
    "brightness": np.linspace(0, 0.9, 10),
    "contrast": np.linspace(0, 0.9, 10),
    "colour": np.linspace(0, 0.9, 10),
    "sharpness": np.linspace(0, 0.9, 10),
    "posterize": np.round(np.linspace(8, 4, 10)),
    "solarize": np.linspace(256, 0, 10),
}


def test_magnitudes_of_the_ten_levels() -> None:
    for name in OPERATIONS:
        expected = RANGES.get(name, np.zeros(10))
        assert [magnitude_of(name, level) for level in range(10)] == pytest.approx(expected.tolist(), abs=1e-12)


# Cubuk et al. 2019, Table 7, copied a second time, in its notation.
TABLE = """
(Invert,0.1,7) (Contrast,0.2,6)           (Rotate,0.7,2) (TranslateX,0.3,9)      (Sharpness,0.8,1) (Sharpness,0.9,3)
(ShearY,0.5,8) (TranslateY,0.7,9)         (AutoContrast,0.5,8) (Equalize,0.9,2)  (ShearY,0.2,7) (Posterize,0.3,7)
(Color,0.4,3) (Brightness,0.6,7)          (Sharpness,0.3,9) (Brightness,0.7,9)   (Equalize,0.6,5) (Equalize,0.5,1)
(Contrast,0.6,7) (Sharpness,0.6,5)        (Color,0.7,7) (TranslateX,0.5,8)       (Equalize,0.3,7) (AutoContrast,0.4,8)
(TranslateY,0.4,3) (Sharpness,0.2,6)      (Brightness,0.9,6) (Color,0.2,8)       (Solarize,0.5,2) (Invert,0.0,3)
(Equalize,0.2,0) (AutoContrast,0.6,0)     (Equalize,0.2,8) (Equalize,0.6,4)      (Color,0.9,9) (Equalize,0.6,6)
(AutoContrast,0.8,4) (Solarize,0.2,8)     (Brightness,0.1,3) (Color,0.7,0)       (Solarize,0.4,5) (AutoContrast,0.9,3)
(TranslateY,0.9,9) (TranslateY,0.7,9)     (AutoContrast,0.9,2) (Solarize,0.8,3)  (Equalize,0.8,8) (Invert,0.1,3)
(TranslateY,0.7,9) (AutoContrast,0.9,1)
"""


def test_the_table_is_the_published_one() -> None:
    words = {"Color": "colour", "ShearY": "shear-y", "TranslateX": "translate-x", "TranslateY": "translate-y"}
    entries = [entry.strip("()").split(",") for entry in TABLE.split()]
    published = [(words.get(name, name.lower()), float(chance), int(level)) for name, chance, level in entries]
    assert [part for pair in POLICY for part in pair] == published
    assert len(POLICY) == 25


@pytest.mark.parametrize("shape", [(16, 3, 32, 32), (16, 1, 8, 8), (8, 3, 7, 10)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_at_all_levels(name: str, shape: tuple[int, ...]) -> None:
    images = pictures(shape)
    for level, amount in enumerate(RANGES.get(name, np.zeros(10)).tolist()):
        for sign in (1, -1) if name in SIGNED else (1,):
            operation = torch.full((shape[0],), OPERATIONS.index(name))
            magnitude = torch.full((shape[0],), sign * amount, dtype=torch.float64)
            expected = by_pillow(images, lambda image, m=sign * amount: autoaugmented(image, name, m))
            assert torch.equal(apply_operation(images, operation, magnitude), expected), (level, sign)


@pytest.mark.parametrize("shape", [(300, 3, 32, 32), (300, 1, 8, 8)])
def test_equals_one_image_at_a_time(shape: tuple[int, ...]) -> None:
    images = pictures(shape)
    before = images.clone()
    out = autoaugment(images, torch.Generator().manual_seed(5))
    draw = draw_policy(len(images), torch.Generator().manual_seed(5))
    for i, image in enumerate(images):
        expected = picture(image)
        for stage in range(2):
            number = int(draw.operation[stage, i])
            if number >= 0:
                expected = autoaugmented(expected, OPERATIONS[number], float(draw.magnitude[stage, i]))
        assert torch.equal(out[i], levels(expected)), i
    assert torch.equal(images, before)


def test_sub_policies_are_equally_likely() -> None:
    counts = torch.bincount(draw_policy(N, torch.Generator().manual_seed(0)).policy, minlength=25)
    assert stats.chisquare(counts.numpy()).pvalue > RARE


def test_probabilities_and_signs_of_each_sub_policy() -> None:
    draw = draw_policy(N, torch.Generator().manual_seed(1))
    for number, pair in enumerate(POLICY):
        mine = draw.policy == number
        count = int(mine.sum())
        done = [draw.operation[stage, mine] >= 0 for stage in range(2)]
        for stage, (name, probability, level) in enumerate(pair):
            operation, magnitude = draw.operation[stage, mine], draw.magnitude[stage, mine]
            assert set(operation.tolist()) <= {OPERATIONS.index(name), -1}
            assert stats.binomtest(int(done[stage].sum()), count, probability).pvalue > RARE, (number, stage)
            amount = magnitude_of(name, level)
            assert torch.equal(magnitude.abs(), torch.full_like(magnitude, amount))
            if name in SIGNED and amount:
                assert stats.binomtest(int((magnitude < 0).sum()), count, 0.5).pvalue > RARE, (number, stage)
            else:
                assert (magnitude >= 0).all()
        both, expected = int((done[0] & done[1]).sum()), pair[0][1] * pair[1][1]
        assert stats.binomtest(both, count, expected).pvalue > RARE  # the two are independent
