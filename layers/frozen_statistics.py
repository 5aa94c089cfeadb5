"""Freeze the moving statistics of batch normalization, independently of `trainable`."""

import functools
import inspect
from typing import Any

import keras
from keras.layers import BatchNormalization


def freeze_batch_statistics(model: keras.Model) -> list[str]:
    """Make every BatchNormalization of `model`, also nested ones, use its moving statistics in `fit`.

    The layer computes y = γ (x − μ) / √(σ² + ε) + β with the moving μ and σ², which no longer change. γ and β are
    trained if `trainable` is True. The statistics stay frozen through `trainable = True`, `compile`, `clone_model` and
    saving, until `unfreeze_batch_statistics(model)`. `base(x, training=False)` does not freeze them, because `fit`
    overrides it inside a functional model. `trainable = False` does not either, because the next `base.trainable =
    True` undoes it.

    The layers become `layers>FrozenBatchNormalization` (a subclass of their own class), so a saved model needs
    `import layers` before `keras.saving.load_model`. Compile afterwards, as after every change of `trainable`.

    Returns:
        The names of the layers whose statistics are frozen.

    Example:
        layers.freeze_batch_statistics(base)
        base.trainable = True
        model.compile(keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy")
    """
    found = _normalizations(model)
    for layer in found:
        set_class(layer, frozen_class(type(layer)))  # pyright: ignore[reportArgumentType]
    return [layer.name for layer in found]


def unfreeze_batch_statistics(model: keras.Model) -> list[str]:
    """Undo `freeze_batch_statistics`: trainable layers update their moving statistics again.

    Compile afterwards.

    Returns:
        The names of the layers whose statistics were frozen.
    """
    frozen = [layer for layer in _normalizations(model) if is_frozen(layer)]
    for layer in frozen:
        set_class(layer, type(layer).unfrozen)
    return [layer.name for layer in frozen]


def is_frozen(layer: keras.layers.Layer) -> bool:
    """Return whether `freeze_batch_statistics` has frozen the statistics of `layer`."""
    return hasattr(type(layer), "unfrozen")


def set_class(layer: keras.layers.Layer, cls: type) -> None:
    """Give `layer` another class with the same attributes; graphs that contain the layer continue to use it."""
    object.__setattr__(layer, "__class__", cls)  # avoids Layer.__setattr__, which tracks state


def _normalizations(model: keras.Model) -> list[Any]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, BatchNormalization)]


@functools.cache  # pyright considers Keras's classes unhashable, so the calls ignore its rule
def frozen_class(cls: type) -> type:
    """Return a subclass of `cls`, a kind of BatchNormalization, that always runs in inference mode."""
    if hasattr(cls, "unfrozen"):
        return cls
    signature = inspect.signature(cls.call)

    @functools.wraps(cls.call)
    def call(self, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.arguments["training"] = False
        return cls.call(*bound.args, **bound.kwargs)

    def get_config(self) -> dict[str, Any]:
        config = cls.get_config(self)
        return config if cls is BatchNormalization else {**config, "unfrozen": _reference(cls)}

    members = {"call": call, "get_config": get_config, "from_config": classmethod(_from_config), "unfrozen": cls}
    # .weights.h5 files name layers by class. With the name of `cls`, these files also load into the frozen layer.
    frozen = type(cls.__name__, (cls,), {**members, "__module__": __name__})
    register = keras.saving.register_keras_serializable("layers", "FrozenBatchNormalization")
    register(frozen)
    if cls is not BatchNormalization:
        register(FrozenBatchNormalization)  # loading a file uses this class, which creates the others
    return frozen


def _reference(cls: type) -> dict:
    """Return the name of a class in a configuration; as in Keras, without the module `__main__`."""
    module = None if cls.__module__ == "__main__" else cls.__module__
    return {"module": module, "class_name": cls.__name__, "registered_name": keras.saving.get_registered_name(cls)}


def _from_config(cls: type, config: dict[str, Any]) -> BatchNormalization:
    config = dict(config)
    kind = config.pop("unfrozen", {"module": "keras.layers", "class_name": "BatchNormalization"})
    layer = keras.saving.deserialize_keras_object({"registered_name": None, **kind, "config": config})
    if not isinstance(layer, BatchNormalization):
        raise ValueError(
            f"FrozenBatchNormalization needs a BatchNormalization, got a {type(layer).__name__}. Load a file of a "
            f"model that freeze_batch_statistics changed."
        )
    set_class(layer, frozen_class(type(layer)))  # pyright: ignore[reportArgumentType]
    return layer


FrozenBatchNormalization = frozen_class(BatchNormalization)  # pyright: ignore[reportArgumentType]
