"""`Result.predict` and its relatives take images in every form that a caller has them, and mark the bad ones."""

import io

import numpy as np
import pytest
from assertions import Ending, rejects
from makers import picture, png
from PIL import Image

from recipes import DataError


@pytest.mark.slow
def test_bad_images_of_a_list_or_a_folder_are_marked(trained, tmp_path):
    result, photos = trained
    good = (photos / "red" / "024.jpg").read_bytes()
    files = {"a.jpg": good, "b.jpg": good[:300], "c.png": b"hello", "d.jpg": b"", "e.jpg": good}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in files]
    alone = result.predict(paths[0])[0]
    for images in (tmp_path, paths, iter(paths), list(files.values())):
        found = result.predict(images)
        assert [p.class_name for p in found] == ["red", None, None, None, "red"]
        for p, word in zip(found, ("", "truncated jpeg", "not an image", "zero bytes", ""), strict=True):
            assert word in p.error and bool(word) == bool(p.error)
            assert np.isnan(p.probability) == bool(p.error) and p.probabilities.shape == (3,)
        np.testing.assert_allclose(found[4].probabilities, alone.probabilities, atol=1e-6)
        np.testing.assert_allclose(found[0].probability, alone.probability, atol=1e-6)
        assert [p.path for p in found] == ([None] * 5 if isinstance(images, list) and images is not paths
                                           else [str(path) for path in paths])  # fmt: skip
    (missing,) = result.predict([tmp_path / "gone.jpg"])
    assert "No such file" in missing.error and missing.path == str(tmp_path / "gone.jpg")
    assert result.predict([good[:300]], abstain=0.5)[0].error


@pytest.mark.parametrize(
    ("image", "name", "reason"),
    [("b.jpg", "b.jpg", "not an image"), (b"hello", "images[0]", "not an image"), (b"", "images[0]", "zero bytes")],
)
def test_a_single_bad_image_is_an_error(trained, tmp_path, image, name, reason):
    (tmp_path / "b.jpg").write_bytes(b"hello")
    with rejects(DataError, "data.undecodable", files=(Ending(name),)) as caught:
        trained[0].predict(tmp_path / image if isinstance(image, str) else image)
    assert caught.value.reasons[0].startswith(reason)


def test_a_single_missing_image_is_an_error(trained, tmp_path):
    with rejects(DataError, "dataset.missing", path=tmp_path / "missing.jpg"):
        trained[0].predict(tmp_path / "missing.jpg")


@pytest.mark.slow
def test_pillow_images_are_seen_as_their_files_are(trained, tmp_path):
    """Every mode, an alpha channel, an orientation: as the PNG or JPEG file of the same picture."""
    result, _ = trained
    colour = Image.fromarray(picture((210, 50, 40), 1))
    clear = colour.copy()
    clear.putalpha(Image.fromarray((np.indices((40, 48)).sum(0) * 2).astype(np.uint8)))
    deep = Image.fromarray((np.arange(40 * 48).reshape(40, 48) * 30).astype(np.uint16))
    images = [colour, clear, deep, *(colour.convert(mode) for mode in ("L", "P", "1", "LA"))]
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    for image, file in zip(images, files, strict=True):
        image.save(file)
    turned, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    colour.save(turned, exif=exif, quality=95)
    images, files = [*images, Image.open(turned)], [*files, turned]
    expected = np.stack([p.probabilities for p in result.predict(files)])
    # Pillow and TensorFlow may round a JPEG's pixels apart by one.
    np.testing.assert_allclose([p.probabilities for p in result.predict(images)], expected, atol=2e-3)
    np.testing.assert_allclose(result.probabilities(images[0]), expected[:1], atol=1e-6)
    printed = colour.convert("CMYK")
    np.testing.assert_allclose(result.probabilities(printed), result.probabilities(printed.convert("RGB")), atol=1e-6)
    score = result.evaluate((images[:2], ["red", "red"]))
    assert score.n == 2 and score.accuracy == np.mean(expected[:2].argmax(1) == result.class_names.index("red"))


@pytest.mark.slow
def test_other_forms_of_one_image(trained, tmp_path):
    result, _ = trained
    pixels = picture((50, 180, 60), 2)
    content = png(pixels)
    (tmp_path / "a.png").write_bytes(content)
    expected = result.predict(pixels)[0].probabilities
    for image in (
        content, bytearray(content), memoryview(content), io.BytesIO(content), tmp_path / "a.png", [content],
        str(tmp_path / "a.png"), np.array([str(tmp_path / "a.png")]), pixels.astype(float), [pixels], (pixels,),
        Image.fromarray(pixels), (one for one in [pixels]),
    ):  # fmt: skip
        np.testing.assert_allclose(result.predict(image)[0].probabilities, expected, atol=1e-6)
    with open(tmp_path / "a.png", "rb") as file:
        np.testing.assert_allclose(result.probabilities([file]), expected[None], atol=1e-6)
    grey = pixels[..., 0]
    same = np.repeat(grey[..., None], 3, -1)
    np.testing.assert_allclose(result.probabilities(grey), result.probabilities(same), atol=1e-6)


def test_nothing_is_nothing(trained, tmp_path):
    result, _ = trained
    for nothing in ([], (), iter([]), np.zeros((0, 40, 48, 3), np.uint8)):
        assert result.predict(nothing) == []
    assert result.probabilities([]).shape == (0, 3)
    for images in (tmp_path, "", None, {"a": 1}, 3):
        with pytest.raises(DataError):
            result.predict(images)
    for dataset in (([], []), []):
        with pytest.raises(DataError):
            result.evaluate(dataset)
