"""Exports, asked in processes that have only TensorFlow, and the proof that lets nothing else out."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from assertions import rejects
from makers import picture, png, small_network
from odd_images import bmp, gif
from PIL import Image, ImageOps

import augment
import recipes
import recipes.export.formats
import recipes.export.model_card
import recipes.networks.backbones
import recipes.networks.classifier
from recipes import OutputError, ProofError, RecipesError
from recipes.export import saved_model
from recipes.export.options import ExportOptions
from recipes.networks.embedding import features_model

CLIENT = """
import json, sys
sys.modules.update(keras=None, tf_keras=None, recipes=None, augment=None)  # importing any of them would fail
import numpy as np
import tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
contents = [open(path, "rb").read() for path in sys.argv[2:]]
def plain(outputs):
    text = np.vectorize(bytes.decode, otypes=[object])
    return {k: (text(v.numpy()) if v.dtype == tf.string else v.numpy()).tolist() for k, v in outputs.items()}
print(json.dumps({name: plain(signatures[name](image_bytes=tf.constant(contents)))
                  for name in ("serving_default", "rows", "features")}))
"""


def ask(directory, files):
    command = [sys.executable, "-c", CLIENT, str(directory), *map(str, files)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def signatures(directory):
    return tf.saved_model.load(str(directory)).signatures


@pytest.mark.slow
def test_a_process_with_tensorflow_alone_answers_the_same(exported, tmp_path):
    """Good images of odd shapes beside damaged ones, which have their reasons and do not disturb."""
    result, photos, directory = exported.result, exported.photos, exported.versions / "1"
    files = sorted(photos.glob("*/*.jpg"))[::4]
    odd = tmp_path / "odd.png"
    odd.write_bytes(png(np.random.default_rng(0).integers(0, 256, (17, 90, 4), np.uint8)))
    clear = tmp_path / "clear.gif"
    clear.write_bytes(gif(np.arange(200).reshape(10, 20).astype(np.uint8) % 7, canvas=(30, 40), transparent=3))
    files += [odd, clear]
    bad = {"half.jpg": files[0].read_bytes()[:400], "text.jpg": b"no image", "nothing.jpg": b""}
    bad["moving.webp"] = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x12\0\0\0" + bytes(30)
    bad["runs.bmp"] = bmp(8, 8, 8, bytes(64), compression=1)
    bad["layers.tiff"] = b"II*\0" + bytes(99)
    bad["deep.jpg"] = files[0].read_bytes().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c")
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    answers = ask(directory, [*files, *(tmp_path / name for name in bad)])
    answer, n = answers["serving_default"], len(files)
    ours = result.predict(files)
    np.testing.assert_allclose(answer["probabilities"][:n], [p.probabilities for p in ours], atol=1e-5)
    assert answer["class_names"] == result.class_names
    assert answer["class_name"] == [p.class_name for p in ours] + [""] * 7
    assert answer["error"][:n] == [""] * n
    words = (
        "damaged",
        "not an image",
        "zero bytes",
        *(f"format not supported: {name}" for name in ("animated WebP", "compressed BMP", "TIFF", "JPEG of 12 bits")),
    )
    for error, word in zip(answer["error"][n:], words, strict=True):
        assert error.startswith(word)
    assert np.isnan(answer["probabilities"][n:]).all()
    rows = np.sort(np.array(answer["probabilities"][:n]), 1)[:, ::-1]
    np.testing.assert_array_equal(answer["top_probabilities"][:n], rows)
    assert {k: v for k, v in answer.items() if k != "class_names"}.keys() == answers["rows"].keys()
    np.testing.assert_allclose(answers["rows"]["probabilities"], answer["probabilities"], atol=1e-6)


@pytest.mark.slow
def test_names_that_are_not_utf_8_are_written_readably(exported, tmp_path):
    names = ["blue", "caf\udce9", "red"]
    result = replace(exported.result, class_names=names, command={"dataset": "d\udce9"})
    extra = result.export(tmp_path / "keras", format="keras") / "assets.extra"
    metadata = json.loads((extra / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["class_names"] == ["blue", "caf\\xe9", "red"] and metadata["command"] == {"dataset": "d\\xe9"}
    assert "caf\\xe9" in (extra / "model_card.md").read_text(encoding="utf-8")
    served = saved_model.ServedModel(result, ExportOptions(top_k=3)).signatures()["serving_default"]
    content = tf.constant([png(picture((210, 50, 40), 1))])
    assert served(content)["class_names"].numpy().tolist() == [b"blue", b"caf\\xe9", b"red"]


@pytest.mark.slow
def test_the_features_are_what_the_linear_classifier_sees(exported, tmp_path):
    result, photos, directory = exported.result, exported.photos, exported.versions / "1"
    file = photos / "red" / "024.jpg"
    (tmp_path / "text.jpg").write_text("no image")
    features = np.array(ask(directory, [file, tmp_path / "text.jpg"])["features"]["features"])
    assert np.isnan(features[1]).all()
    member = next((layer for layer in result.model.layers if isinstance(layer, keras.Model)), result.model)
    head = keras.Model(member.inputs, member.get_layer("logits").input)
    crop = augment.centre_crop(file.read_bytes(), result.recipe.evaluation_policy)
    np.testing.assert_allclose(features[0], head(crop[None])[0], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("crops", [1, 10])
def test_pixels_of_any_size_answer_as_files_do(trained, crops):
    result, _ = trained
    options = ExportOptions(crops=crops, top_k=2)
    served = saved_model.ServedModel(result, options).signatures()
    for size in ((30, 50), (80, 48)):
        image = picture((210, 50, 40), 1, size)
        outputs = served["pixels"](tf.constant(image[None]))
        expected = result.predict(image, crops=crops)[0].probabilities
        np.testing.assert_allclose(outputs["probabilities"][0], expected, atol=1e-5)
        encoded = served["rows"](tf.constant([png(image)]))
        np.testing.assert_allclose(encoded["probabilities"][0], expected, atol=1e-5)
        assert outputs["top_names"].shape == (1, 2)


@pytest.mark.slow
def test_abstaining_names_no_class(trained):
    """`class_name` is what `Result.predict(abstain=…)` says."""
    result, photos = trained
    files = sorted(photos.glob("*/*.jpg"))[::6]
    threshold = float(np.median([p.probability for p in result.predict(files)])) + 1e-6
    served = saved_model.ServedModel(result, ExportOptions(top_k=3, abstain=threshold)).signatures()
    outputs = served["rows"](tf.constant([file.read_bytes() for file in files]))
    expected = [p.class_name or "" for p in result.predict(files, abstain=threshold)]
    assert "" in expected and any(expected)
    assert [name.decode() for name in outputs["class_name"].numpy()] == expected


@pytest.mark.slow
def test_an_export_with_crops_and_quantized_weights_is_proved(trained, tmp_path, capsys):
    """The next free version, by the Result's own multi-crop predictions; int8 weights are a fraction of the size."""
    result, _ = trained
    (tmp_path / "serving" / "4").mkdir(parents=True)
    (tmp_path / "serving" / "4" / "x").touch()
    directory = result.export(tmp_path / "serving", crops=10, quantize="int8")
    assert directory == tmp_path / "serving" / "5"
    metadata = json.loads((directory / "assets.extra" / "metadata.json").read_text())
    assert metadata["proof"]["agreement"] >= metadata["proof"]["required"] == 0.9
    assert metadata["proof"]["tolerance"] is None and 0 < metadata["proof"]["difference"] < 0.1
    assert metadata["options"]["crops"] == 10 and metadata["options"]["quantize"] == "int8"
    assert "quantized" in capsys.readouterr().out
    variables = tf.train.load_checkpoint(str(directory / "variables" / "variables"))
    types = {variables.get_variable_to_dtype_map()[n] for n in variables.get_variable_to_shape_map()}
    assert tf.int8 in types


@pytest.mark.slow
def test_the_metadata_say_what_was_proved(exported):
    result, directory = exported.result, exported.versions / "1"
    extra = directory / "assets.extra"
    metadata = json.loads((extra / "metadata.json").read_text())
    assert metadata["class_names"] == result.class_names
    assert (
        metadata["proof"]["tolerance"] == 1e-4
        and metadata["proof"]["difference"] < 1e-4
        and metadata["proof"]["agreement"] == 1
    )
    assert metadata["proof"]["told"].startswith(
        "6 validation images, and 17 generated images"
    )  # of a run that was loaded
    assert metadata["weights_sha256"] == recipes.export.model_card.weights_checksum(result.model)
    for name, checksum in metadata["files_sha256"].items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == checksum
    card = (extra / "model_card.md").read_text()
    for part in ("## Data and split", "## Plan", "## Ledger", "## Limits", "## Versions", "## Licence", "proof:"):
        assert part in card
    assert str(result.validation) in card and "tensorflow" in card


@pytest.mark.slow
def test_saved_model_cli_runs_it(exported, tmp_path):
    """The tool that comes with TensorFlow understands the signature."""
    photos, directory = exported.photos, exported.versions / "1"
    np.save(tmp_path / "in.npy", np.array([(photos / "red" / "024.jpg").read_bytes()]))
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    where = ["--dir", str(directory), "--tag_set", "serve", "--signature_def", "serving_default"]
    shown = subprocess.run([*tool, "show", *where], check=True, capture_output=True, text=True).stdout
    assert "image_bytes" in shown and "probabilities" in shown and "class_names" in shown
    given = ["--inputs", f"image_bytes={tmp_path / 'in.npy'}", "--outdir", str(tmp_path)]
    subprocess.run([*tool, "run", *where, *given], check=True, capture_output=True)
    assert np.load(tmp_path / "probabilities.npy").shape == (1, 3)


def test_an_empty_batch_says_so(exported):
    serve = tf.saved_model.load(str(exported.versions / "1")).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="image_bytes is empty"):
        serve(image_bytes=tf.zeros([0], tf.string))


@pytest.mark.slow
def test_another_preprocessing_is_not_exported(trained, tmp_path, monkeypatch):
    """The most common failure is channels in another order. The proof fails, and no file is left behind."""
    straight = augment.centre_crop
    monkeypatch.setattr(saved_model.augment, "centre_crop", lambda image, policy: straight(image, policy)[..., ::-1])
    with rejects(ProofError, "proof.mismatch") as caught:
        trained[0].export(tmp_path / "deep" / "serving")
    assert caught.value.proof.difference > 1e-4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.minutes
def test_other_images_can_be_the_proof(trained, tmp_path):
    """The error names the large images that the SavedModel would reject, and says what to do."""
    result, _ = trained
    for name in ("red", "blue"):
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "a.png").write_bytes(png(picture((1, 2, 3), 5, (300, 300))))
    with rejects(ProofError, "proof.rejected", match="raise max_pixels") as caught:
        result.export(tmp_path / "serving", proof=tmp_path / "own", max_pixels=80_000)
    assert len(caught.value.names) == 2
    assert not (tmp_path / "serving").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "quantize"), [("keras", None), ("onnx", None), ("litert", None), ("litert", "int8")]
)
def test_other_formats_are_proved_too(trained, tmp_path, format, quantize):
    pytest.importorskip({"keras": "keras", "onnx": "onnxruntime", "litert": "ai_edge_litert"}[format])
    result, _ = trained
    directory = result.export(tmp_path / "serving", format=format, quantize=quantize)
    proof = json.loads((directory / "assets.extra" / "metadata.json").read_text())["proof"]
    assert proof["images"] == 23
    assert proof["agreement"] >= 0.9 if quantize else proof["difference"] <= 1e-4
    assert (directory / recipes.export.formats.FILES[format]).is_file()


def test_what_a_format_cannot_hold_is_rejected_before_a_file_is_written(trained, tmp_path, monkeypatch):
    pytest.importorskip("tf2onnx")
    result, _ = trained

    def unsupported(self, images):
        return tf.numpy_function(lambda x: x, [images], tf.float32)

    monkeypatch.setattr(keras.layers.Rescaling, "call", unsupported)
    with rejects(RecipesError, "export.not_representable", format="onnx", match="'saved_model' and 'keras'"):
        result.export(tmp_path / "serving", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_operation_that_onnx_lacks_is_named(tmp_path):
    """tf2onnx only logs this; the error names the formats that are left."""
    pytest.importorskip("tf2onnx")
    images = keras.Input((32, 32, 3))
    resized = keras.layers.Resizing(16, 16, antialias=True)(images)
    x = keras.layers.GlobalAveragePooling2D()(resized)
    model = keras.Model(images, keras.layers.Dense(2, activation="softmax", name="logits")(x))
    result = recipes.Result(model, ["a", "b"], recipes.linear_probe(32), {}, recipes.Audit((), {}), "small")
    with rejects(RecipesError, "export.not_representable", format="onnx", match="'saved_model' and 'keras'") as caught:
        result.export(tmp_path / "serving", format="onnx")
    assert "ScaleAndTranslate" in caught.value.reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["saved_model", "onnx", "litert"])
def test_a_folder_that_is_not_utf_8_is_rejected_before_anything_is_written(exported, tmp_path, format):
    folder = tmp_path / "caf\udce9"
    with rejects(OutputError, "output.not_utf8", name="caf\udce9"):
        exported.result.export(folder / "serving", format=format)
    assert not folder.exists()


def test_wrong_use(exported, tmp_path):
    result, directory = exported.result, exported.versions / "1"
    with rejects(OutputError, "output.exists", free=directory.with_name("2")):
        result.export(directory)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").touch()
    with rejects(OutputError, "output.not_versions", path=tmp_path / "letters"):
        result.export(tmp_path / "letters")
    (tmp_path / "file").touch()
    for bad, code in ((tmp_path / "file", "output.file"), (tmp_path / "file" / "1", "output.not_writable")):
        with rejects(OutputError, code, path=bad):
            result.export(bad)
    with rejects(RecipesError, "recipe.crops", field="crops", value=3):
        result.export(tmp_path / "x", crops=3)
    for wrong, field in [
        (dict(format="pickle"), "format"),
        (dict(format="onnx", crops=10), "crops"),
        (dict(format="onnx", quantize="int8"), "quantize"),
        (dict(format="keras", top_k=2), "top_k"),
        (dict(format="keras", max_pixels=10), "max_pixels"),
        (dict(quantize="int4"), "quantize"),
        (dict(abstain=2), "abstain"),
        (dict(abstain="0.8"), "abstain"),
        (dict(abstain=True), "abstain"),
        (dict(top_k=True), "top_k"),
        (dict(top_k=4), "top_k"),
        (dict(max_pixels=0), "max_pixels"),
    ]:
        with rejects(RecipesError, "export.option", field=field, value=wrong[field]):
            result.export(tmp_path / "x", **wrong)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_an_ensemble_is_proved_by_the_images_that_judged_it(trained, tmp_path):
    result, photos = trained
    other = keras.models.clone_model(result.model)
    other.set_weights(result.model.get_weights())
    joint = recipes.ensemble([result, replace(result, model=other)], photos)
    directory = joint.export(tmp_path / "serving", format="keras")
    metadata = json.loads((directory / "assets.extra" / "metadata.json").read_text())
    assert metadata["proof"]["told"].startswith("36 validation images, and 17 generated images")
    assert "top_k" not in metadata["options"]


@pytest.mark.parametrize(
    ("backbone", "terms"),
    [
        ("ResNet50", "MIT (Kaiming He)"),
        ("ResNet50V2", "BSD"),
        ("ConvNeXtTiny", "MIT (Meta)"),
        ("Xception", "MIT (Fr"),
        ("MobileNetV2(alpha=0.35)", "Apache"),
        ("base/backbone.keras", "unknown"),
        ("ensemble of 2: MobileNetV2(alpha=0.35, weights='a, b'), VGG16", "MobileNetV2, see"),
        ("ensemble of 2: MobileNetV2(alpha=0.35, weights='a, b'), VGG16", "CC BY"),
    ],
)
def test_the_licence_is_that_of_the_pretrained_weights(backbone, terms):
    assert terms in recipes.export.model_card.licence(backbone)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("members", [1, 2])
def test_features_of_mirror_images_and_ensembles(tmp_path, mirror, members):
    """Those of the image as it is, of every member, also after a model was saved and loaded."""
    networks = [recipes.networks.backbones.resolve(small_network(seed=10 * i)) for i in range(members)]
    models = [recipes.networks.classifier.logits_model(network, 3, 32) for network in networks]
    whole = recipes.networks.classifier.with_probabilities(models, mirror=mirror)
    whole.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    heads = [keras.Model(model.inputs, model.get_layer("logits").input) for model in models]
    expected = np.concatenate([head.predict(images, verbose=0) for head in heads], 1)
    for model in (whole, keras.saving.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(features_model(model).predict(images, verbose=0), expected, atol=1e-4)
    assert features_model(networks[0].network) is None


def _classifier(backbone, size=64):
    """A Result of a network as it is, with a head that tells pictures apart."""
    network = recipes.networks.backbones.resolve(backbone)
    model = recipes.networks.classifier.logits_model(network, 3, size, seed=1)
    recipes.networks.classifier.set_head(
        model, np.random.default_rng(0).normal(0, 0.3, (model.layers[-1].input.shape[-1], 3)), np.zeros(3)
    )
    recipe = recipes.linear_probe(size)
    served = recipes.networks.classifier.with_probabilities(model, mirror=True, temperature=1.5)
    return recipes.Result(served, ["ant", "bee", "cat"], recipe, {}, recipes.Audit((), {}), backbone)


@pytest.mark.minutes
@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param("MobileNetV2(alpha=0.35)", marks=pytest.mark.shared),
        "EfficientNetV2B0(weights=None)",
        "ResNet50V2(weights=None)",
    ],
)
def test_three_families_of_networks_by_all_signatures_and_orientations(backbone, shared, tmp_path):
    if "weights" not in backbone:
        file = shared / "weights" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
        backbone = f"MobileNetV2(alpha=0.35, weights={str(file)!r})"
    result = _classifier(backbone)
    directory = result.export(tmp_path / "serving")
    metadata = json.loads((directory / "assets.extra" / "metadata.json").read_text())
    assert metadata["proof"]["told"].startswith("no validation images available")
    files = _oriented(tmp_path)
    answer = ask(directory, files)
    ours = result.predict(files)
    for signature in ("serving_default", "rows"):
        np.testing.assert_allclose(answer[signature]["probabilities"], [p.probabilities for p in ours], atol=1e-4)
    served = signatures(directory)
    for file, row, features in zip(files, ours, answer["features"]["features"], strict=True):
        upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))[None]  # by another library than ours
        outputs = served["pixels"](pixels=tf.constant(upright))
        np.testing.assert_allclose(outputs["probabilities"][0], row.probabilities, atol=0.02)
        assert np.isfinite(features).all() and np.ptp(features) > 0
    assert np.ptp([p.probabilities for p in ours], 0).max() > 1e-3  # orientations can be told apart: none is ignored


def _oriented(tmp_path) -> list[Path]:
    """The same stored pixels with each EXIF orientation, as cameras write them."""
    image = Image.fromarray(picture((210, 50, 40), 3, (80, 120)))
    image.paste((20, 240, 30), (0, 0, 50, 30))
    files = []
    for n in range(1, 9):
        exif = image.getexif()
        exif[0x0112] = n
        files.append(tmp_path / f"{n}.jpg")
        image.save(files[-1], quality=95, exif=exif)
    return files
