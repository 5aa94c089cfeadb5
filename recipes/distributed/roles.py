"""Several hosts: worker 0 does everything that one process would, and all of them take its gradient steps together.

Whatever is chosen, measured, timed or written is so by worker 0 alone: the others wait for trainings to take part in,
decode their slices of its batches, and get its Result in the end. So nothing can be decided twice.
"""

import base64
import io
import logging
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path

import keras
import numpy as np

from recipes.data.images import ImageData, Splits, joined
from recipes.distributed.cluster import Cluster, as_told, shapes
from recipes.distributed.same_data import facts_of
from recipes.errors import ClusterError, PeerLost
from recipes.planning.recipe_json import recipe_of
from recipes.runs.folder import load, save
from recipes.runs.record import Record
from recipes.training.loop.loop import Training

logger = logging.getLogger(__name__)


def share_result(cluster: Cluster, result: Record) -> None:
    """Send the result of worker 0, which has done all that one process would, to the workers that wait for it."""
    try:
        cluster.rest()
        cluster.peers.send({"do": "end", "run": _packed(result)})
    except PeerLost:
        logger.warning("The run is complete, but a worker that has stopped did not receive the result.")


def follow(cluster: Cluster, splits: Splits) -> Record:
    """All that a worker but the first does: take part in the trainings of worker 0, which has loaded the same images;
    returns its Result.

    Raises: what ended worker 0.
    """
    peers, everything = cluster.peers, reduce(joined, splits.given.values())
    at = {name: i for i, name in enumerate(everything.names)}
    peers.send({"data": facts_of(splits)})
    logger.info(f"worker {cluster.workers[0]} of {cluster.workers[1]}: worker 0 leads, and says what it does")
    while True:
        told = peers.receive()
        if told["do"] == "fail":
            raise as_told(told)
        if told["do"] == "end":
            return _unpacked(told["run"])
        if told["do"] == "train":
            _take_part(cluster, told, lambda images: _images(images, everything, at))


def _take_part(cluster: Cluster, told: dict, images_of: Callable) -> None:
    task = told["task"]
    model = keras.models.model_from_json(told["model"])
    for layer, trainable in zip(model._flatten_layers(), told["trainable"], strict=True):
        layer.trainable = trainable
    if shapes(model) != told["shapes"]:
        raise ClusterError("the network of worker 0 is built otherwise here: are the libraries the same?")
    data, recipe = images_of(task.pop("images")), recipe_of(task.pop("recipe"))
    training = Training(model, data, recipe, seed=task.pop("seed"), rates=task.pop("rates"))
    engine = training.follow(**task)
    logger.info(
        f"worker {cluster.workers[0]}: the training is complete; its weights differ from worker 0's by at most "
        f"{engine.drift:.1g}"
    )


def _images(told: dict, everything: ImageData, at: dict[str, int]) -> ImageData:
    """The images of a training, by their names: `everything` that was loaded, and where in it they are."""
    found = everything.subset([at[name] for name in told["names"]])
    return replace(found, labels=np.array(told["labels"]), class_names=tuple(told["class_names"]))


def _packed(result: Record) -> str:
    with tempfile.TemporaryDirectory() as folder, io.BytesIO() as file:
        save(result, Path(folder) / "run")
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(Path(folder) / "run", "run")
        return base64.b64encode(file.getvalue()).decode()


def _unpacked(packed: str) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed))) as archive:
            archive.extractall(folder, filter="data")
        return load(Path(folder) / "run")
