"""Separate the features of a network from its classification head."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from recipes.errors import BackboneError

POOL = "pool_"  # name prefix of the pooling layers of a run's classifier
_KERNELS = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Conv2D)
_ALONG = (keras.layers.BatchNormalization, keras.layers.LayerNormalization)  # layers whose weights do not form a head
_GLOBAL = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
_PROBABILITIES = {"softmax", "logsoftmax", "sparsemax"}  # activations, layers and operations
_CUT_ALWAYS = (keras.layers.Softmax, keras.layers.Activation, keras.layers.Dropout)
_KEEPS_CHANNELS = (keras.layers.PReLU, keras.layers.GroupNormalization)  # used in addition to `_ALONG`
SIDE = 128  # image size in pixels at which a network without a fixed size is tested
FEW = 32  # smallest number of channels at which a last layer that reduces channels may be an embedding


@dataclass(frozen=True)
class _Place:
    """A tensor in the graph of `model`, or of a nested model, which is reached by the calls `nodes`.

    Keras's graph is annotated as `Any`, because its stubs lack the history of tensors and the type of nodes.
    """

    model: keras.Model
    tensor: Any
    nodes: tuple[Any, ...] = ()

    @property
    def node(self) -> Any:
        operation, index, _ = self.tensor._keras_history
        return operation._inbound_nodes[index]

    @property
    def operation(self) -> Any:
        return self.node.operation

    @property
    def is_vector(self) -> bool:
        """Whether the tensor is (batch, channels), or a feature map of one cell."""
        shape = tuple(self.tensor.shape)
        return len(shape) == 2 or (len(shape) == 4 and shape[1:3] == (1, 1))

    def before(self) -> "_Place | None":
        """Return the only input of the operation that made this tensor; None if it has no input or several."""
        if isinstance(self.operation, keras.layers.InputLayer):
            if not self.nodes:
                return None
            outer = self.nodes[-1].input_tensors
            return replace(self, tensor=outer[0], nodes=self.nodes[:-1]).entered() if len(outer) == 1 else None
        tensors = self.node.input_tensors
        return replace(self, tensor=tensors[0]).entered() if len(tensors) == 1 else None

    def entered(self) -> "_Place":
        """Return the same tensor within the nested model that made it; return this place if no nested model made it."""
        inner = self.operation
        if not isinstance(inner, keras.Model) or len(getattr(inner, "outputs", ())) != 1 or len(inner.inputs) != 1:
            return self
        return replace(self, tensor=inner.outputs[0], nodes=(*self.nodes, self.node)).entered()

    def network(self) -> keras.Model:
        """Return the model that ends in this tensor."""
        tensor = self.tensor
        for node in reversed(self.nodes):
            inner = node.operation
            tensor = keras.Model(inner.inputs[0], tensor, name=inner.name)(node.input_tensors[0])
        return keras.Model(self.model.inputs[0], tensor, name=self.model.name)


def without_head(model: keras.Model) -> keras.Model:
    """Return the part of `model` that ends in its features.

    Dense layers, and convolutions of pooled feature maps, at the end are removed with the layers after them. If a model
    without such layers ends in probabilities, its last layer with weights is removed.

    Raises:
        BackboneError: If the model has several outputs, or its class scores are not computed by one layer from
            features.
    """
    if len(model.outputs) != 1:
        raise BackboneError(
            f"backbone {model.name} has {len(model.outputs)} outputs; expected one feature tensor",
            code="backbone.outputs",
        )
    end = _Place(model, model.outputs[0]).entered()
    cut = _without_dense(end) or _without_probabilities(end) or _without_activations(end)
    network = model if cut is end else cut.network()
    is_whole = cut.tensor is end.tensor
    if _makes_probabilities(cut) or (is_whole and _is_head(end)) or _returns_probabilities(network):
        raise BackboneError(
            f"backbone {model.name} ends in class scores that several layers compute; expected a feature map "
            "(batch, h, w, c) or features (batch, c). Give the network without its classifier: "
            "keras.Model(model.inputs, FEATURES)",
            code="backbone.scores",
        )
    if scores := _few_scores(cut) or (is_whole and _few_of_more(network)):
        raise BackboneError(
            f"backbone {model.name} ends in {scores} channels, which look like class scores; expected features "
            f"with more than {FEW} channels. Give the network without the layers that reduce them: "
            "keras.Model(model.inputs, FEATURES)",
            code="backbone.scores",
            channels=scores,
        )
    return network


def _returns_probabilities(network: keras.Model) -> bool:
    """Whether the outputs for test images are probabilities or logarithms of probabilities.

    One test image is black, because a gate that bright pixels saturate can make outputs look like log-probabilities.
    """
    side = network.inputs[0].shape[1] or SIDE
    images = np.random.default_rng(0).uniform(0, 255, (3, side, side, 3)).astype("float32")
    images *= np.reshape([1, 0.1, 0], (3, 1, 1, 1))
    alone = keras.Model(network.inputs[0], network.outputs[0])  # the input of some models is not a list
    rows = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(alone(images, training=False), "float32")), float)
    if rows.shape[-1] < 2:
        return False
    positive, negative = (rows >= 0).all(), (rows <= 0).all()
    sums = rows.sum(-1) if positive else np.exp(rows).sum(-1)
    return bool((positive or negative) and np.allclose(sums, 1, atol=1e-2))


def _few_of_more(network: keras.Model) -> int:
    """Number of channels of the output vector, if it is small and an earlier tensor has more channels; otherwise 0."""
    channels = network.outputs[0].shape[-1]
    if len(network.outputs[0].shape) != 2 or not channels or channels > FEW:
        return 0
    return channels if any((tensor.shape[-1] or 0) > channels for tensor in _tensors(network)) else 0


def _tensors(network: keras.Model) -> Iterator[keras.KerasTensor]:
    """Yield the outputs of all operations, including those in nested models."""
    for nodes in network._nodes_by_depth.values():
        for node in nodes:
            yield from (tensor for tensor in node.output_tensors if len(tensor.shape) > 1)
            if isinstance(node.operation, keras.Model) and hasattr(node.operation, "_nodes_by_depth"):
                yield from _tensors(node.operation)


def _last_with_weights(end: _Place) -> _Place | None:
    """Return the place of the last layer with weights that may change the number of channels; None without one."""
    place = end
    while place is not None and (isinstance(place.operation, _KEEPS_CHANNELS) or not _has_weights(place.operation)):
        place = place.before()
    return place


def _few_scores(end: _Place) -> int:
    """Return the number of channels if the last layer with weights is linear and reduces them to a few, otherwise 0.

    The result is also 0 if no layer with weights precedes that layer.
    """
    place = _last_with_weights(end)
    if place is None or (before := place.before()) is None:
        return 0
    if _activation(place.operation) not in ("", "linear") or not before.network().weights:
        return 0
    channels, more = place.tensor.shape[-1], before.tensor.shape[-1]
    return channels if channels and more and channels < more and channels <= FEW else 0


def _without_dense(end: _Place) -> _Place | None:
    """Return the place before the Dense layers at the end, if layers with weights precede them, otherwise None."""
    cut, place = None, end
    while len(end.tensor.shape) == 2 and place.is_vector and (before := place.before()) is not None:
        if _scores_features(place):
            if not before.network().weights:
                break
            cut = before
        elif _has_weights(place.operation):
            break
        elif cut and isinstance(place.operation, _CUT_ALWAYS) and len(before.tensor.shape) == 2:
            cut = before
        place = before
    return cut


def _without_probabilities(end: _Place) -> _Place | None:
    """Return the place before the last layer with weights if its outputs become probabilities; otherwise None."""
    place, found = end, False
    while (before := place.before()) is not None:
        found = found or _makes_probabilities(place) or (place.is_vector and _is_sigmoid(place.operation))
        if _has_weights(place.operation):
            return before if found and before.network().weights else None
        place = before
    return None


def _without_activations(end: _Place) -> _Place:
    """Return the place before the activations and the dropout at the end of a network without a head."""
    place = end
    while len(place.tensor.shape) == 2 and isinstance(place.operation, _CUT_ALWAYS) and (before := place.before()):
        place = before
    return place


def _has_weights(operation: Any) -> bool:
    """Return whether an operation has weights that compute features or scores; a normalization has none."""
    return bool(getattr(operation, "weights", None)) and not isinstance(operation, _ALONG)


def _scores_features(place: _Place) -> bool:
    """Return whether a Dense layer, its equivalent on a pooled map of one cell, or a wrapper of one made the tensor."""
    if not place.is_vector or not isinstance(getattr(place.operation, "layer", place.operation), _KERNELS):
        return False
    return len(place.tensor.shape) == 2 or _is_pooled(place)


def _is_pooled(place: _Place | None) -> bool:
    while place is not None and place.is_vector:
        if isinstance(place.operation, _GLOBAL):
            return True
        place = place.before()
    return False


def _makes_probabilities(place: _Place) -> bool:
    return not {_activation(place.operation), type(place.operation).__name__.lower()}.isdisjoint(_PROBABILITIES)


def _is_sigmoid(operation: Any) -> bool:
    return "sigmoid" in (_activation(operation), type(operation).__name__.lower())


def _activation(operation: Any) -> str:
    return getattr(getattr(operation, "activation", None), "__name__", "").replace("_", "")


def _is_head(place: _Place) -> bool:
    """Return whether the tensor holds class scores, or a mean, a sum or a selection of class scores."""
    if _makes_probabilities(place) or _scores_features(place):
        return True
    if isinstance(place.operation, keras.layers.InputLayer) or _has_weights(place.operation):
        return False
    before = place.before()
    several = [before] if before else [replace(place, tensor=x).entered() for x in place.node.input_tensors]
    return place.is_vector and bool(several) and all(map(_is_head, several))


def network_of_run(model: keras.Model) -> tuple[keras.Model, tuple[keras.layers.Layer, ...]] | None:
    """Return the network and the preprocessing of the classifier of a run; None for any other model.

    If the classifier uses stages of the network, the network ends at the deepest one of them.

    Raises:
        BackboneError: If the classifier is the mean of several networks.
    """
    members = [layer for layer in model.layers if isinstance(layer, keras.Model) and layer.name.startswith("member_")]
    if len(members) > 1 and all(network_of_run(member) for member in members):
        raise BackboneError(
            f"backbone {model.name} is the mean of {len(members)} networks (snapshots, or an ensemble); expected one "
            "network. Give one run of the ensemble, give the single network that `recipes soup` makes, or train "
            "without snapshots.",
            code="backbone.ensemble",
            members=len(members),
        )
    if len(members) == 1:
        return network_of_run(members[0])
    networks = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    if len(networks) != 1 or "logits" not in {layer.name for layer in model.layers}:
        return None
    (network,) = networks
    before = tuple(layer for layer in model.layers if layer.name == "preprocessing")
    tensor = before[0].output if before else model.inputs[0]
    if not any(node.input_tensors[0] is tensor for node in network._inbound_nodes if node.input_tensors):
        return None
    return _to_deepest(network), before


def _to_deepest(network: keras.Model) -> keras.Model:
    """Return `network` up to its deepest output, before the pooling."""
    ends = [x._keras_history.operation for x in network.outputs]
    maps = [end.input if end.name.startswith(POOL) else end.output for end in ends]
    bodies = [keras.Model(network.inputs[0], tensor, name=network.name) for tensor in maps]
    return max(bodies, key=lambda body: len(body.operations))
