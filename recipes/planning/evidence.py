"""The facts that the plan reads from a probe, and the conclusions that several modules draw from these facts."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

NEARLY_FULLY = 0.9  # data is similar to ImageNet above this accuracy of the linear classifier on the last stage


class StageEvidence(Protocol):
    """A linear classifier on one stage; see `recipes.StageResult`."""

    @property
    def name(self) -> str: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def interval(self) -> tuple[float, float]: ...
    @property
    def nll(self) -> float: ...
    @property
    def taps(self) -> tuple[int, ...]: ...
    @property
    def losses(self) -> np.ndarray: ...
    @property
    def mirror_gain(self) -> tuple[float, float]: ...


class MirrorEvidence(Protocol):
    """Accuracies on images and on their mirror images; see `recipes.probing.probe.MirrorTest`."""

    @property
    def straight(self) -> float: ...
    @property
    def mirrored(self) -> float: ...
    @property
    def alike(self) -> bool: ...


class ProbeEvidence(Protocol):
    """The linear classifiers on all stages; see `recipes.Probe`."""

    @property
    def stages(self) -> Sequence[StageEvidence]: ...
    @property
    def last(self) -> StageEvidence: ...
    @property
    def head(self) -> StageEvidence: ...
    @property
    def mirrors(self) -> MirrorEvidence: ...


def mirrors_keep_class(probe: ProbeEvidence | None) -> bool:
    """Return whether mirror images keep their class; True if that was not measured."""
    return probe is None or probe.mirrors.alike


def mirrors_gain(probe: ProbeEvidence | None) -> bool:
    """Return whether averaging over mirror images increases the likelihood by more than two standard errors."""
    if probe is None or not probe.mirrors.alike:
        return False
    gain, error = probe.head.mirror_gain
    return gain > 2 * error


def similar(probe: ProbeEvidence) -> bool:
    """Return whether the data is similar to ImageNet.

    The last stage of the network is the most specialised on ImageNet. Data is similar if that stage separates the
    classes as well as any other within the noise, and nearly completely by the upper end of its interval.
    """
    return probe.head is probe.last and probe.last.interval[1] >= NEARLY_FULLY


def uncertain(probe: ProbeEvidence) -> bool:
    """Return whether `similar` would change at the lower end of the interval or at twice the noise."""
    low, high = probe.last.interval
    if high < NEARLY_FULLY or (low >= NEARLY_FULLY and probe.head is probe.last):
        return False
    gain = probe.last.losses - probe.head.losses
    return not gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
