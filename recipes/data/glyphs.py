"""Draw letters, digits and symbols of every font that matplotlib ships, as if by an unsteady hand.

Each glyph is stored as a signed distance field. Another threshold in the field makes the stroke thicker or thinner, and
displaced sampling positions bend or slant it. One lookup therefore draws any variation of a glyph.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from recipes.data.digits import SIZE, enlarge
from recipes.data.images import ImageData

FIELD = 64  # side of a distance field in pixels
BOX = 40  # longer side of a glyph in its field
# fonts whose other code points do not follow Unicode
ASCII_ONLY = ("cmb10", "cmmi10", "cmr10", "cmss10", "cmti10", "cmtt10")
# fonts with placeholders, or private or shifted code points
UNUSABLE = ("LastResort", "STIXNonUni", "cmex10", "cmsy10")


@dataclass(frozen=True, eq=False)
class Glyphs:
    """Glyphs as signed distance fields in field pixels; values are positive inside the ink.

    Attributes:
        fields: float16 (n, FIELD, FIELD).
        labels: int64 (n,), indices into `class_names`.
        class_names: Names of the classes, such as "Oo", "1", "&". Characters that look alike are one class, whose name
            joins them.
        fonts: The font file of each glyph, without its extension.
    """

    fields: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    fonts: tuple[str, ...]


@dataclass(frozen=True)
class Hand:
    """Ranges of the random variations of drawn glyphs. All draws are uniform; one number x is the range ±x.

    Attributes:
        rotate: Rotation in degrees.
        shear: Shear in degrees.
        stretch: Stretch as log2 of width / height.
        margin: Side of the picture divided by the longer side of the glyph.
        translate: Displacement as a share of the side.
        bend: Standard deviation of a smooth displacement, as a share of the side.
        stroke: Field pixels that are added to each side of a stroke.
        resolutions: Sides in pixels, with probabilities, to which a picture is reduced before it is enlarged again.
        inverted: Probability of dark ink on a bright ground.
    """

    rotate: float = 12.0
    shear: float = 25.0
    stretch: float = 0.8
    margin: tuple[float, float] = (0.9, 1.2)
    translate: float = 0.06
    bend: tuple[float, float] = (0.0, 0.08)
    stroke: tuple[float, float] = (-1.0, 3.5)
    resolutions: tuple[tuple[int, float], ...] = ((8, 0.6), (16, 0.25), (32, 0.15))
    inverted: float = 0.25


def font_files() -> list[Path]:
    """Return the usable TrueType files in matplotlib's own data folder, sorted."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [path for path in sorted(folder.glob("*.ttf")) if not path.stem.startswith(UNUSABLE)]


def character(code: int) -> str:
    """Return the character of a code point without its font style (𝟙, 𝒂 → 1, a); empty for a composed character.

    Accented letters, ligatures, fractions and similar characters are composed of other glyphs and are omitted.
    """
    text = chr(code)
    style = unicodedata.decomposition(text).split(" ")[0]
    if style == "<font>":
        text = unicodedata.normalize("NFKC", text)
    elif style:
        return ""
    return text if unicodedata.category(text)[0] in "LNPS" else ""


def code_points(path: Path) -> list[int]:
    """Return the code points of a font file whose glyphs show the characters that Unicode defines."""
    from matplotlib.ft2font import FT2Font

    last = 126 if path.stem in ASCII_ONLY else 0x10FFFF
    return [code for code in FT2Font(str(path)).get_charmap() if code <= last and character(code)]


def rasters(path: Path, codes: list[int]) -> dict[int, np.ndarray]:
    """Return code point → boolean ink (FIELD, FIELD), centred, with a longer side of BOX pixels; omit blank glyphs."""
    from matplotlib.ft2font import FT2Font
    from scipy.ndimage import find_objects

    font = FT2Font(str(path))

    def ink(code: int, size: float) -> np.ndarray:
        font.set_size(size, 72)
        font.set_text(chr(code))
        font.draw_glyphs_to_bitmap(antialiased=True)
        drawn = np.asarray(font.get_image()) > 127
        box = find_objects(drawn.astype(int))
        return drawn[box[0]] if box else np.zeros((0, 0), bool)

    found = {}
    for code in codes:
        longer = max(ink(code, FIELD).shape)
        enlarged = ink(code, FIELD * BOX / longer) if longer else np.zeros((0, 0))
        if enlarged.size:
            before = [(FIELD - side) // 2 for side in enlarged.shape]
            around = [(b, FIELD - side - b) for b, side in zip(before, enlarged.shape, strict=True)]
            found[code] = np.pad(enlarged, around)
    return found


def load_glyphs(min_fonts: int = 18, alike: float = 0.93) -> Glyphs:
    """Return all characters that occur in at least `min_fonts` font files, in all fonts and styles.

    Characters whose pictures correlate by at least `alike` on average over the fonts become one class.
    """
    from scipy.ndimage import distance_transform_edt

    codes = {path: code_points(path) for path in font_files()}
    spread = Counter(text for found in codes.values() for text in {character(code) for code in found})
    inks, characters, fonts = [], [], []
    for path, found in codes.items():
        for code, ink in rasters(path, [code for code in found if spread[character(code)] >= min_fonts]).items():
            inks.append(ink)
            characters.append(character(code))
            fonts.append(path.stem)
    inks = np.array(inks)
    class_of = merge_alike(inks, characters, fonts, alike)
    names, labels = np.unique([class_of[text] for text in characters], return_inverse=True)
    distance = cast(Callable[[np.ndarray], np.ndarray], distance_transform_edt)  # the stubs also declare other results
    fields = np.array([distance(ink) - distance(~ink) for ink in inks], np.float16)
    return Glyphs(fields, labels.astype(np.int64), tuple(names.tolist()), tuple(fonts))


def merge_alike(inks: np.ndarray, characters: list[str], fonts: list[str], alike: float) -> dict[str, str]:
    """Return the class name of each character.

    Two characters are in one class if the correlation of their 8 × 8 pictures is at least `alike` on average over the
    fonts that have both. Characters that are connected through other characters are also in one class.
    """
    small = inks.reshape(len(inks), 8, FIELD // 8, 8, FIELD // 8).mean((2, 4)).reshape(len(inks), -1)
    small -= small.mean(1, keepdims=True)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    texts = sorted(set(characters))
    number = {text: i for i, text in enumerate(texts)}
    total, shared = np.zeros((2, len(texts), len(texts)))
    for font in sorted(set(fonts)):
        first = {number[characters[i]]: i for i in reversed(range(len(fonts))) if fonts[i] == font}
        rows, members = np.array(list(first.values())), np.array(list(first))
        total[np.ix_(members, members)] += small[rows] @ small[rows].T
        shared[np.ix_(members, members)] += 1
    joined = total >= alike * np.maximum(shared, 1)
    from scipy.sparse.csgraph import connected_components

    group = connected_components(joined, directed=False)[1]
    return {text: "".join(t for t in texts if group[number[t]] == group[i]) for i, text in enumerate(texts)}


def glyphs(count: int = 60_000, *, seed: int = 0, hand: Hand | None = None, masters: Glyphs | None = None) -> ImageData:
    """Return `count` drawings, uint8 (count, 32, 32, 1), spread evenly over the classes and the fonts of each class.

    Args:
        count: Number of drawings.
        seed: Seed of all random choices.
        hand: Ranges of the random variations.
        masters: The glyphs; None takes those of matplotlib's fonts.

    Example:
        >>> pretrain(glyphs(20_000))
    """
    masters = masters or load_glyphs()
    rng = np.random.default_rng(seed)
    members = [rng.permutation(np.flatnonzero(masters.labels == c)) for c in range(len(masters.class_names))]
    labels = np.arange(count) % len(members)
    which = np.array([members[c][n // len(members) % len(members[c])] for n, c in enumerate(labels)])
    parts = [draw(masters.fields, part, hand or Hand(), rng) for part in np.array_split(which, -(-count // 1000))]
    names = tuple(
        f"{masters.class_names[masters.labels[i]]} in {masters.fonts[i]}, drawing {n}" for n, i in enumerate(which)
    )
    return ImageData(np.concatenate(parts)[..., None], labels.astype(np.int64), masters.class_names, names)


def draw(fields: np.ndarray, which: np.ndarray, hand: Hand, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 pictures (n, SIZE, SIZE) of the glyphs `which`, each drawn once by `hand`."""
    n = len(which)
    distance = sample(fields, which, warp(n, hand, rng))
    thinnest = 1.8 - fields[which].max((1, 2)).astype(np.float32)  # keeps the thinnest stroke visible
    stroke = np.maximum(rng.uniform(*hand.stroke, n), thinnest)
    ink = np.clip(0.5 + (distance + stroke[:, None, None]) * (SIZE / BOX), 0, 1)
    sides, probabilities = zip(*hand.resolutions, strict=True)
    side_of = rng.choice(sides, n, p=probabilities)
    for side in sides:
        chosen = side_of == side
        blocks = ink[chosen].reshape(-1, side, SIZE // side, side, SIZE // side).mean((2, 4))
        ink[chosen] = enlarge(blocks, SIZE)
    return photograph(ink, hand, rng)


def warp(n: int, hand: Hand, rng: np.random.Generator) -> np.ndarray:
    """Return the sampling positions of n pictures, (n, 2, SIZE, SIZE): (x, y) in field pixels from the centre."""
    axis = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    grid = np.stack(np.meshgrid(axis, axis))  # x and y in −1..1
    turn = np.radians(rng.uniform(-hand.rotate, hand.rotate, n))
    slant = np.tan(np.radians(rng.uniform(-hand.shear, hand.shear, n)))
    stretch = 2 ** (rng.uniform(-hand.stretch, hand.stretch, n) / 2)
    margin = rng.uniform(*hand.margin, n)
    one, nothing = np.ones(n), np.zeros(n)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shear = np.array([[one, slant], [nothing, one]])
    scale = np.array([[margin / stretch, nothing], [nothing, margin * stretch]])
    matrix = np.einsum("ijn,jkn,kln->nil", scale, shear, rotation)
    moved = grid + rng.uniform(-2, 2, (n, 2, 1, 1)) * hand.translate
    bent = moved + 2 * rng.uniform(*hand.bend, (n, 1, 1, 1)) * smooth_noise(n, rng)
    return np.einsum("nij,njyx->niyx", matrix, bent) * (BOX / 2)


def smooth_noise(n: int, rng: np.random.Generator, waves: int = 4) -> np.ndarray:
    """Return random fields (n, 2, SIZE, SIZE) of unit mean variance, which are sums of the square's lowest cosines."""
    frequency = np.arange(waves)
    basis = np.cos(np.pi * frequency * (np.arange(SIZE)[:, None] + 0.5) / SIZE) / (1 + frequency)
    basis /= np.sqrt((basis**2).sum(1).mean())
    return np.einsum("yi,ncij,xj->ncyx", basis, rng.standard_normal((n, 2, waves, waves)), basis)


def sample(fields: np.ndarray, which: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return bilinear samples (n, SIZE, SIZE) of fields[which] at (x, y) from the centre, clamped at the border."""
    at = np.clip(at + (FIELD - 1) / 2, 0, FIELD - 1.001)
    corner = at.astype(np.int64)
    x, y = (at - corner).astype(np.float32).transpose(1, 0, 2, 3)
    flat = fields.reshape(-1)
    index = which[:, None, None] * FIELD**2 + corner[:, 1] * FIELD + corner[:, 0]
    upper = flat[index] * (1 - x) + flat[index + 1] * x
    lower = flat[index + FIELD] * (1 - x) + flat[index + FIELD + 1] * x
    return upper * (1 - y) + lower * y


def photograph(ink: np.ndarray, hand: Hand, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 pictures of `ink` (0..1) with random brightness of ink and ground, gamma, polarity and noise."""
    n = (len(ink), 1, 1)
    ink = ink ** rng.uniform(0.6, 1.5, n)
    ground, level = rng.uniform(0, 0.2, n), rng.uniform(0.7, 1.0, n)
    picture = ground + (level - ground) * ink
    picture = np.where(rng.random(n) < hand.inverted, 1 - picture, picture)
    picture += rng.standard_normal(ink.shape) * rng.uniform(0, 0.04, n)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
