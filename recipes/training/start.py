"""Hold what a training starts from: the network, the data, and the linear classifier on the frozen network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recipes.core.budget import Budget
from recipes.data.images import ImageData, Splits, joined
from recipes.networks.backbones import Backbone
from recipes.networks.classifier import copied
from recipes.planning.evidence import mirrors_gain, mirrors_keep_class
from recipes.planning.recipe import Recipe
from recipes.probing.features import Features
from recipes.probing.logistic import Linear, fit_path
from recipes.probing.probe import Probe


@dataclass(frozen=True, eq=False)
class Start:
    """The network, the images and the linear classifier with which a training begins.

    Attributes:
        network: The pretrained network.
        splits: The training and validation images, and perhaps test images.
        measured: The probe of the training images; None if the weights are random.
        features: Features of the frozen network, of the training and then the validation images; None if the weights
            are random.
        image_seconds: Seconds of one image's pass through the network; 0 if unknown.
        taps_given: Whether the user chose the stages whose features are classified. The baseline then uses the same
            stages.
    """

    network: Backbone
    splits: Splits
    measured: Probe | None
    features: Features | None
    image_seconds: float = 0.0
    taps_given: bool = False

    @property
    def classes(self) -> int:
        return len(self.splits.train.class_names)

    @property
    def validation(self) -> ImageData:
        """Return the validation images, which every prepared dataset has."""
        assert self.splits.validation is not None
        return self.splits.validation

    @property
    def _probe(self) -> Probe:
        assert self.measured is not None  # every caller has a recipe with a warm start, so the network was probed
        return self.measured

    @property
    def _features(self) -> Features:
        assert self.features is not None  # likewise
        return self.features

    def taps(self, recipe: Recipe) -> tuple[int, ...]:
        """Return the positions of the stages that the recipe classifies."""
        return self._probe.last.taps if recipe.taps is None else recipe.taps

    def linear(self, recipe: Recipe, *, everything: bool = False) -> Linear:
        """Return the linear classifier of the training images, with `everything` also of the validation images."""
        taps = self.taps(recipe)
        stage = next((stage for stage in self._probe.stages if stage.taps == taps), None)
        if stage and not everything:
            return _balanced(stage.classifier, self.splits.train.labels, recipe)
        data = joined(self.splits.train, self.validation) if everything else self.splits.train
        l2 = (stage or self._probe.last).classifier.l2
        return _balanced(self._fitted(taps, l2, data.labels, np.arange(len(data))), data.labels, recipe)

    def _fitted(self, taps: Sequence[int], l2: float, labels: np.ndarray, rows: np.ndarray) -> Linear:
        """Fit a linear classifier to the features at `rows`."""
        views = self._features.tapped(taps)[: 1 + self._probe.mirrors.alike, rows]
        return fit_path(views, labels[rows], self.classes, (10 * l2, l2))[-1]

    @property
    def mirrors_alike(self) -> bool:
        """Return whether mirror images keep their class; True if not measured."""
        return mirrors_keep_class(self.measured)

    @property
    def mirrors_gain(self) -> bool:
        """Return whether averaging over mirror images raises the linear classifier's likelihood beyond the noise."""
        return mirrors_gain(self.measured)

    def crops_to_measure(self, recipe: Recipe, budget: Budget) -> int:
        """Return how many crops to measure: the requested number or, by default, ten; 0 if there is no time.

        The default is five if mirror images change the class.
        """
        count = recipe.crops if recipe.asks_for_crops else 10 if self.mirrors_alike else 5
        return count if self.time_for(count * len(recipe.scales or (1,)), budget) else 0

    def time_for(self, passes: float, budget: Budget) -> bool:
        """Return whether so many passes over the validation images fit into the time limit."""
        return budget.allows(passes * self.image_seconds * len(self.validation))

    def copy(self) -> "Start":
        """Return a start with a copy of the network, because a training changes the network's weights."""
        return replace(self, network=self.network.with_network(copied(self.network.network)))

    def fold(self, inside: np.ndarray, outside: np.ndarray) -> "Start":
        """Return a `copy` for one fold of cross-validation.

        Args:
            inside: Indices of the training images to train on. The linear classifiers are fitted again to these images.
            outside: Indices of the training images that become the validation images.
        """
        data = self.splits.train
        part = Splits(data.subset(inside), data.subset(outside))
        if self.measured is None:
            return replace(self.copy(), splits=part)
        probe = self.measured
        stages = tuple(
            replace(stage, classifier=self._fitted(stage.taps, stage.classifier.l2, data.labels, inside))
            for stage in probe.stages
            if stage in (probe.head, probe.last, probe.stages[-1])
        )
        features = self._features[np.concatenate([inside, outside])]
        return replace(self.copy(), splits=part, measured=replace(probe, stages=stages), features=features)

    def rival(self, recipe: Recipe) -> Recipe:
        """Return the recipe of the baseline: the linear classifier that a training has to beat.

        The baseline uses the best stages, unless the user chose the stages of `recipe`.
        """
        if self.taps_given or recipe.taps != self._probe.stages[-1].taps:
            return recipe
        return replace(recipe, taps=self._probe.head.taps)

    def held_out_logits(self, recipe: Recipe, views: int = 1) -> np.ndarray:
        """Return logits (views, n, classes) of the validation images by the linear classifier."""
        features = self._features.tapped(self.taps(recipe))[:views, len(self.splits.train) :]
        return self.linear(recipe).logits(features)


def _balanced(linear: Linear, labels: np.ndarray, recipe: Recipe) -> Linear:
    """Return the classifier for equally frequent classes if the recipe is balanced: logits − log(shares)."""
    if not recipe.balanced:
        return linear
    counts = np.bincount(labels, minlength=len(linear.bias))
    return replace(linear, bias=linear.bias - np.log(counts / len(labels)))
