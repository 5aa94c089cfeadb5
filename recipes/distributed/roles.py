"""Divide a job among hosts: worker 0 does the whole job, and the others take part in its gradient steps.

Only worker 0 chooses, measures and writes. The other workers wait for trainings, decode their slices of the batches,
and receive the Result at the end.
"""

import base64
import io
import logging
import tarfile
import tempfile
from dataclasses import replace
from functools import reduce
from pathlib import Path

import keras
import numpy as np

from recipes.data.images import ImageData, Splits, joined
from recipes.distributed.cluster import Cluster, ClusterEngine
from recipes.distributed.messages import error_from_message, shapes
from recipes.distributed.same_data import data_facts
from recipes.errors import ClusterError, PeerLost
from recipes.planning.recipe_json import recipe_of
from recipes.runs.folder import load, save
from recipes.runs.record import Record
from recipes.training.loop.loop import Training
from recipes.training.loop.task import Task

logger = logging.getLogger(__name__)


def share_result(cluster: Cluster, result: Record) -> None:
    """Send the result of worker 0 to the waiting workers."""
    try:
        cluster.end_training()
        cluster.peers.send({"do": "end", "run": _packed(result)})
    except PeerLost:
        logger.warning("The run is complete, but a worker that has stopped did not receive the result.")


def follow(cluster: Cluster, splits: Splits) -> Record:
    """Take part in the trainings of worker 0, and return the result that it sends.

    Args:
        cluster: This worker among its peers.
        splits: The images, which worker 0 has loaded as well.

    Raises:
        RecipesError: If an error ended worker 0.
    """
    peers, everything = cluster.peers, reduce(joined, splits.given.values())
    rows = {name: i for i, name in enumerate(everything.names)}
    peers.send({"data": data_facts(splits)})
    number, count = cluster.shard
    logger.info(f"worker {number} of {count}: taking part in the trainings of worker 0, which reports the results")
    while True:
        message = peers.receive()
        if message["do"] == "fail":
            raise error_from_message(message)
        if message["do"] == "end":
            return _unpacked(message["run"])
        if message["do"] == "train":
            names = message["task"]["images"]["names"]
            _take_part(number, message, everything.subset([rows[name] for name in names]))


def _take_part(number: int, message: dict, images: ImageData) -> None:
    """Train the model in worker 0's message on this worker's slices of `images`."""
    task = message["task"]
    model = keras.models.model_from_json(message["model"])
    for layer, trainable in zip(model._flatten_layers(), message["trainable"], strict=True):
        layer.trainable = trainable
    if shapes(model) != message["shapes"]:
        raise ClusterError(
            "the network's weights differ in shape from those at worker 0; install the same versions of the "
            "libraries on every host",
            code="cluster.other_network",
        )
    labels = task.pop("images")
    images = replace(images, labels=np.array(labels["labels"]), class_names=tuple(labels["class_names"]))
    recipe = recipe_of(task.pop("recipe"))
    training = Training(Task(model, images, recipe, task.pop("seed"), task.pop("rates")))
    engine = training.follow(**task)
    assert isinstance(engine, ClusterEngine)  # inside a Cluster the engine always has this type
    logger.info(
        f"worker {number}: the training is complete; its weights differ from worker 0's by at most {engine.drift:.1g}"
    )


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
