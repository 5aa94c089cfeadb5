"""Which of several networks suits a dataset best: all probed on the same images and the same folds."""

import logging
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from recipes.auditing.audit import audit, usable
from recipes.core.output import safe_output
from recipes.data.image_size import natural_size
from recipes.data.sources import load
from recipes.errors import BackboneError
from recipes.networks.backbones import resolve
from recipes.probing.features import Extractor
from recipes.probing.probe import Probe, probe_backbone

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Ranked:
    """One network: its probe, its number of weights, and the image size at which it was probed."""

    name: str
    probe: Probe
    weights: int
    size: int


@dataclass(frozen=True, eq=False)
class Ranking:
    """Networks from best to worst, by the cross-validated likelihood of the linear classifier that each would be
    finetuned from. `best.name` is what `finetune(backbone=...)` takes."""

    networks: tuple[Ranked, ...]

    @property
    def best(self) -> Ranked:
        return self.networks[0]

    def table(self) -> Table:
        table = Table("network", "accuracy", "95 % interval", "nats", "LogME", "weights", "px", "seconds",
                      title="linear classifiers on frozen networks, cross-validated")  # fmt: skip
        for ranked in self.networks:
            head = ranked.probe.head
            low, high = head.interval
            table.add_row(ranked.name, f"{head.accuracy:.1%}", f"{low:.1%} to {high:.1%}", f"{head.nll:.3f}",
                          f"{ranked.probe.last.logme:.3f}", f"{ranked.weights / 1e6:.1f} M", str(ranked.size),
                          f"{ranked.probe.seconds:.1f}")  # fmt: skip
        return table

    def __str__(self) -> str:
        console = Console(width=110)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get().rstrip()


@safe_output()
def rank(dataset, backbones, *, seed: int = 0) -> Ranking:
    """Which of `backbones` (each as `finetune` takes it) to finetune on `dataset`.

    Every network looks at the training images once (kept on disk, so that asking again, or finetuning, is free) and is
    judged by the linear classifier on its features, with LogME beside it.

    Raises: DataError, BackboneError.

    Example: `rank("photos/", ["MobileNetV3Small", "EfficientNetV2B0", "ResNet50V2"]).best.name`
    """
    backbones = list(backbones) if not isinstance(backbones, str) else [backbones]
    if not backbones:
        raise BackboneError("backbones is empty; name at least one, such as 'EfficientNetV2B0'")
    networks = [resolve(backbone) for backbone in backbones]
    random = [network.name for network in networks if not network.pretrained]
    if random:
        raise BackboneError(f"the weights of {', '.join(random)} are random: there is nothing to rank them by")
    splits = load(dataset)
    for note in splits.notes:
        logger.info(note)
    splits, facts = usable(splits, audit(splits))
    found = []
    for network in networks:
        look = Extractor(network, natural_size(network, splits.train))
        told = probe_backbone(look, splits.train, facts, seed)
        found.append(Ranked(network.name, told, network.network.count_params(), look.policy.size))
    return Ranking(tuple(sorted(found, key=lambda ranked: ranked.probe.head.nll)))
