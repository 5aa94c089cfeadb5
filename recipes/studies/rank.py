"""Rank pretrained networks for a dataset by probes on the same images and the same folds."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from recipes.auditing.audit import audit, usable
from recipes.core.output import safe_output
from recipes.core.text import counted, described, percent, short
from recipes.data.image_size import natural_size
from recipes.data.sources import load
from recipes.errors import BackboneError
from recipes.networks.backbones import resolve
from recipes.probing.features import Extractor
from recipes.probing.probe import Probe, probe_backbone

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Ranked:
    """Hold one network's probe, its number of weights, and the image size of the probe."""

    name: str
    probe: Probe
    weights: int
    size: int

    def __repr__(self) -> str:
        head = self.probe.head
        weights = f"{self.weights / 1e6:.1f} M weights"
        return described("Ranked", repr(self.name), percent(head.accuracy, head.interval), weights, f"{self.size} px")


@dataclass(frozen=True, eq=False)
class Ranking:
    """Hold networks from best to worst, by the cross-validated likelihood of a linear classifier on their features.

    Finetuning starts from this linear classifier. Pass `best.name` to `finetune(backbone=...)`.
    """

    networks: tuple[Ranked, ...]

    @property
    def best(self) -> Ranked:
        return self.networks[0]

    def table(self) -> Table:
        """Return the ranking as a table for a terminal."""
        table = Table("network", "accuracy", "95 % interval", "nats", "LogME", "weights", "px", "seconds",
                      title="linear classifiers on frozen networks, cross-validated")  # fmt: skip
        for ranked in self.networks:
            head = ranked.probe.head
            low, high = head.interval
            table.add_row(ranked.name, f"{head.accuracy:.1%}", f"{low:.1%} to {high:.1%}", f"{head.nll:.3f}",
                          f"{ranked.probe.last.logme:.3f}", f"{ranked.weights / 1e6:.1f} M", str(ranked.size),
                          f"{ranked.probe.seconds:.1f}")  # fmt: skip
        return table

    def __repr__(self) -> str:
        head = self.best.probe.head
        best = f"best {short(self.best.name)!r} {percent(head.accuracy, head.interval)}"
        return described("Ranking", counted(len(self.networks), "network"), best)

    def __str__(self) -> str:
        console = Console(width=110)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get().rstrip()


@safe_output()
def rank(dataset: object, backbones: Iterable[object], *, seed: int = 0) -> Ranking:
    """Rank `backbones` by how well linear classifiers on their frozen features separate the classes of `dataset`.

    Every network processes the training images once. The features are cached on disk and reused by later rankings and
    finetuning.

    Args:
        dataset: As `finetune` takes it.
        backbones: The networks, each as `finetune` takes it.
        seed: Seed of the cross-validation.

    Returns:
        The networks from best to worst, with their LogME.

    Raises:
        DataError: As in `finetune`.
        BackboneError: As in `finetune`, and if there is no network or one has random weights.

    Example:
        `rank("photos/", ["MobileNetV3Small", "EfficientNetV2B0", "ResNet50V2"]).best.name`
    """
    backbones = [backbones] if isinstance(backbones, str) else list(backbones)
    if not backbones:
        raise BackboneError(
            "backbones is empty; name at least one, such as 'EfficientNetV2B0'", code="backbone.none", field="backbones"
        )
    networks = [resolve(backbone) for backbone in backbones]
    random = [network.name for network in networks if not network.pretrained]
    if random:
        raise BackboneError(
            f"the weights of {', '.join(random)} are random, so a ranking would be meaningless; use pretrained weights",
            code="backbone.random_weights", value=random,
        )  # fmt: skip
    splits = load(dataset)
    for note in splits.notes:
        logger.info(note)
    splits, facts = usable(splits, audit(splits))
    ranked = []
    for network in networks:
        extractor = Extractor(network, natural_size(network, splits.train))
        probe = probe_backbone(extractor, splits.train, facts, seed)
        ranked.append(Ranked(network.name, probe, network.network.count_params(), extractor.policy.size))
    return Ranking(tuple(sorted(ranked, key=lambda each: each.probe.head.nll)))
