"""Drawn glyphs: what is a character, which look alike, and that drawing moves ink as it says."""

from dataclasses import replace

import numpy as np
import pytest

from recipes.data.glyphs import (
    BOX,
    FIELD,
    Hand,
    character,
    code_points,
    draw,
    font_files,
    glyphs,
    load_glyphs,
    rasters,
    warp,
)

STEADY = Hand(
    rotate=0, shear=0, stretch=0, margin=(1.6, 1.6), translate=0, bend=(0, 0), stroke=(0, 0),
    resolutions=((32, 1.0),), inverted=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def masters():
    return load_glyphs()


def ink_of(pictures):
    return (pictures / 255).mean((1, 2))


def test_characters_lose_their_dress_but_accents_are_left_out():
    assert [character(ord(c)) for c in "𝟙𝒂A1&é½ﬁ "] == ["1", "a", "A", "1", "&", "", "", "", ""]


def test_rasters_fill_their_box():
    path = next(p for p in font_files() if p.stem == "DejaVuSerif")
    found = rasters(path, code_points(path))
    assert {ord(c) for c in "AZaz09&@"} <= set(found)
    for code in map(ord, "AZaz09"):
        ys, xs = np.nonzero(found[code])
        assert found[code].shape == (FIELD, FIELD)
        assert abs(max(np.ptp(ys), np.ptp(xs)) + 1 - BOX) <= 4
        assert abs(ys.min() + ys.max() + 1 - FIELD) <= 1 and abs(xs.min() + xs.max() + 1 - FIELD) <= 1


def test_look_alikes_are_one_class_and_others_are_not(masters):
    class_of = {c: name for name in masters.class_names for c in name}
    assert class_of["O"] == class_of["o"] and class_of["S"] == class_of["s"]
    assert len({class_of[c] for c in "0123456789AaBbKkRr"}) == 18
    assert list(masters.class_names) == sorted(masters.class_names)
    assert sum(map(len, masters.class_names)) == len(class_of)  # each character in one class
    assert np.array_equal(np.unique(masters.labels), np.arange(len(masters.class_names)))


def test_a_distance_field_is_positive_exactly_in_the_ink(masters):
    path = next(p for p in font_files() if p.stem == masters.fonts[0])
    inks = {character(code): ink for code, ink in rasters(path, code_points(path)).items()}
    name = masters.class_names[masters.labels[0]]
    assert any(np.array_equal(masters.fields[0] > 0, inks[c]) for c in name if c in inks)


def test_drawings_are_balanced_labelled_and_seeded(masters):
    count = 2 * len(masters.class_names)
    data, again, other = (glyphs(count, seed=seed, masters=masters) for seed in (0, 0, 1))
    assert data.images.shape == (count, 32, 32, 1) and data.images.dtype == np.uint8
    assert set(data.counts) == {2}
    assert np.array_equal(data.images, again.images) and not np.array_equal(data.images, other.images)
    assert all(name.split(" in ")[0] == data.class_names[i] for name, i in zip(data.names, data.labels, strict=True))


def test_a_steady_hand_reproduces_the_glyph(masters):
    """At margin FIELD / BOX the picture shows the whole field: its ink is the field's, averaged over 2 × 2."""
    which = np.arange(0, len(masters.labels), 97)
    pictures = draw(masters.fields, which, STEADY, np.random.default_rng(0)).astype(float)
    inks = (masters.fields[which] > 0).reshape(-1, 32, 2, 32, 2).mean((2, 4))
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(pictures, inks, strict=True)]
    assert np.median(correlation) > 0.95


def test_a_thicker_stroke_has_more_ink(masters):
    which = np.arange(0, len(masters.labels), 211)
    thick = replace(STEADY, stroke=(4, 4))
    thin, fat = (draw(masters.fields, which, hand, np.random.default_rng(0)) for hand in (STEADY, thick))
    assert (ink_of(fat) > ink_of(thin)).all()


def test_the_warp_of_a_steady_hand_is_a_plain_grid():
    at = warp(3, STEADY, np.random.default_rng(0))
    axis = ((np.arange(32) + 0.5) / 16 - 1) * BOX / 2 * 1.6
    assert np.allclose(at[:, 0], axis[None, None, :]) and np.allclose(at[:, 1], axis[None, :, None])
