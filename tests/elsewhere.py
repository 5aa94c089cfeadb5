"""What Keras's other backends must be able to do, done in a process of its own for `test_backends.py`.

    KERAS_BACKEND=jax python elsewhere.py FOLDER [all | together]

It reads the run in FOLDER/brought, and leaves one of its own and, in told.npz, what was found with both. `together`:
only what is made of several trainings, and options that must not disturb each other.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from makers import arrays, jpeg, small_network
from victim import LOSS, At, Poisoned, interrupted, spoil

import recipes
import recipes.evaluation.selection
import recipes.training.loop.attempt
from recipes.data.sources import unlabelled
from recipes.diagnostics.activations import Inspector
from recipes.networks.compiled import weight_gradients
from recipes.networks.grad_cam import grad_cam
from recipes.training.input.server import InputWorker

OPTIONS = {"size": 32, "test_size": 32, "epochs": 2, "batch_size": 8, "dropout": 0.3, "averaging": 0.9, "refit": False,
           "interpolate": False, "learning_rate": 1e-2}  # fmt: skip
IMAGES, MORE = arrays(14), arrays(3, seed=3)
CLASSES = np.arange(len(MORE[0])) % 3


def finetuned(recipe="all", **how):
    changes = how.pop("changes", {})
    recipe = recipes.adjusted(recipe, **(OPTIONS if recipe != "probe" else {"size": 32}) | changes)
    return recipes.finetune(IMAGES, backbone=small_network(), recipe=recipe, **how)


def seen(result) -> dict:
    """What must be the same on all backends of one set of weights."""
    shown = np.stack([image[4:36, 8:40] for image in MORE[0]]).astype(np.float32)
    loss = lambda: keras.ops.mean(keras.ops.log(result.model(shown)[:, 0]))  # noqa: E731
    return {
        "probabilities": result.probabilities(unlabelled(MORE[0])),
        "crops": result.probabilities(unlabelled(MORE[0]), crops=5, mode="crops"),
        "dense": result.probabilities(unlabelled(MORE[0][:2]), crops=10, mode="dense"),
        "heat": grad_cam(result.model, shown, CLASSES),
        **{f"slope {i}": g for i, g in enumerate(weight_gradients(loss, result.model))},
    }


def same(one, other) -> None:
    """Bit for bit."""
    for ours, theirs in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert one.history == other.history


def resumed(output: Path, undisturbed, **how) -> None:
    """Stopped by a signal and given again, a run ends bit for bit as if nothing had been."""
    try:
        finetuned(output=output, callbacks=[At(6, interrupted)], **how)
        raise AssertionError("it was not stopped")
    except KeyboardInterrupt:
        assert (output / ".state" / "first.npz").exists()
    same(finetuned(output=output, **how), undisturbed)


def refused(result, directory) -> str:
    try:
        result.export(directory)
    except recipes.RecipesError as error:
        return str(error)
    raise AssertionError("it was exported")


class NoMemory(keras.callbacks.Callback):
    """As if an update of eight images had run out of memory, and taken the state with it."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 2 and (self.model.optimizer.gradient_accumulation_steps or 1) < 2:
            if keras.backend.backend() == "torch":
                import torch

                raise torch.OutOfMemoryError("CUDA out of memory")
            import jax

            for variable in self.model.variables:
                variable.value.delete()
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")


def goes_on_after_faults() -> None:
    reasons = {reason.code: reason.values for reason in finetuned(callbacks=[NoMemory()]).recipe.decisions}
    assert reasons["training.memory"] == {"batch": 8, "parts": 2}
    reasons = {reason.code: reason.values for reason in finetuned(callbacks=[At(6, spoil)]).recipe.decisions}
    assert reasons["training.slower"]["divisor"] == 2
    recipes.training.loop.attempt.AdjustedCrossentropy = Poisoned
    try:
        finetuned()
        raise AssertionError("it was trained")
    except recipes.TrainingError as error:
        assert "largest gradient norms at the last good weights are " in str(error)
    finally:
        recipes.training.loop.attempt.AdjustedCrossentropy = LOSS


def looked_inside() -> None:
    """Compiled for the first inspection, on JAX, the second measures the weights of its own moment."""
    calls = []

    class Counted(Inspector):
        def _loss(self, *data):
            calls.append(data)
            return super()._loss(*data)

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    inspect = Counted(model, np.random.default_rng(0).normal(size=(9, 6)).astype("float32"), np.arange(9) % 3)
    first = inspect()
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    second, fresh = inspect(), Inspector(model, inspect.inputs, inspect.labels)()
    assert len(calls) == (1 if keras.backend.backend() == "jax" else 2)
    for name, norm in second.gradients.items():
        np.testing.assert_allclose(norm, fresh.gradients[name], rtol=1e-5)
        assert abs(norm - first.gradients[name]) > 1e-3


def the_rest(root: Path, result) -> None:
    goes_on_after_faults()
    for recipe in ("probe", "few", "scratch"):
        assert finetuned(recipe).validation.n
    assert len(finetuned(snapshots=2, changes={"epochs": 4}).history["loss"]) == 4
    assert recipes.soup([result, result], MORE).validation.n == len(MORE[1])
    result.export(root / "keras", format="keras")
    if keras.backend.backend() == "jax":
        result.export(root / "onnx", format="onnx")
        result.export(root / "litert", format="litert", quantize="int8")
        result.export(root / "crops", crops=10)
    result.report(root / "report.html")
    told = recipes.diagnose(result, IMAGES)
    assert told["learns 20 images by heart"].well and told["gradients"].well and told["initial loss"].well is None


SNAPSHOTS = {"snapshots": 2, "changes": {"epochs": 4}}


def together(root: Path) -> None:
    worker = InputWorker("localhost", 0)
    plain, averaged = finetuned(), finetuned(**SNAPSHOTS)
    assert "2 snapshots" in str(averaged.recipe), averaged.recipe
    same(finetuned(input_workers=[worker.address]), plain)
    same(finetuned(input_workers=[worker.address], **SNAPSHOTS), averaged)
    resumed(root / "snapshots", averaged, **SNAPSHOTS)
    resumed(root / "workers", averaged, input_workers=[worker.address], **SNAPSHOTS)
    several_trainings(plain, averaged)
    keras.config.set_dtype_policy("mixed_float16")
    half = finetuned()
    assert {v.dtype for v in half.model.trainable_variables} == {"float32"} and np.isfinite(half.history["loss"]).all()
    assert "float16" in {layer.compute_dtype for layer in half.model._flatten_layers()}
    resumed(root / "half", half)
    same(finetuned(input_workers=[worker.address]), half)
    assert finetuned(changes={"accumulate": 2}).validation.n == half.validation.n
    several_trainings(half, finetuned(seed=1))
    half.save(root / "saved")
    expected = half.probabilities(unlabelled(MORE[0]))
    np.testing.assert_array_equal(recipes.load(root / "saved").probabilities(unlabelled(MORE[0])), expected)


def several_trainings(one, other) -> None:
    joint = recipes.ensemble([one, other], MORE)
    assert joint.validation.n == len(MORE[1])
    np.testing.assert_allclose(joint.probabilities(unlabelled(MORE[0])).sum(1), 1, atol=1e-5)
    assert recipes.soup([one, one], MORE).validation.n == len(MORE[1])
    base = recipes.adjusted("all", **OPTIONS)
    space = {"learning_rate": [1e-3, 1e-2]}
    found = recipes.search(IMAGES, backbone=small_network(), recipe=base, trials=2, space=space)
    assert found.recipe.learning_rate in space["learning_rate"] and len(found.trials) == 2
    told = recipes.ablate(
        IMAGES, backbone=small_network(), recipe=base, tricks=("label smoothing", "snapshot ensemble")
    )
    rows = {row.trick: row for row in told.rows}
    assert rows["label smoothing"].interval and rows["snapshot ensemble"].note and rows["soup of the runs"], rows


def main(root: Path, everything: bool) -> None:
    backend = keras.backend.backend()
    recipes.evaluation.selection.better = lambda start, other: True
    result = finetuned(output=root / "run")
    noisy = result.predict(MORE[0], samples=4)
    looked_inside()
    told = seen(result) | {"spread": np.array([p.spread for p in noisy])}
    told["brought"] = recipes.load(root / "brought").probabilities(unlabelled(MORE[0]))
    if backend == "jax" or everything:
        resumed(root / "stopped", result)
    if backend == "torch":
        told["refused"] = np.array(refused(result, root / "serving"))
    else:
        told["served"] = result.probabilities(unlabelled([jpeg(image) for image in MORE[0]]))
        result.export(root / "serving")
    if everything:
        the_rest(root, result)
    np.savez(root / "told.npz", **told)


if __name__ == "__main__":
    together(Path(sys.argv[1])) if "together" in sys.argv else main(Path(sys.argv[1]), "all" in sys.argv)
