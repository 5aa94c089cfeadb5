"""What a training begins from: the network, the data, and the linear classifier of the frozen network."""

from dataclasses import dataclass, replace

import numpy as np

from recipes.core.budget import Budget
from recipes.data.images import Splits, joined
from recipes.networks.backbones import Backbone
from recipes.networks.classifier import copied
from recipes.planning.evidence import mirrors_gain, mirrors_keep_class
from recipes.planning.recipe import Recipe
from recipes.probing.features import Features
from recipes.probing.logistic import Linear, fit_path
from recipes.probing.probe import Probe


@dataclass(frozen=True, eq=False)
class Start:
    """What a training begins from.

    measured, features: the probe of the training images, and what the frozen network makes of training and validation
    images, in that order; None where random weights are trained.
    image_seconds: of one image's pass through the network; 0 where nobody measured it.
    taps_given: whether the user chose the stages that are classified from, so that the linear classifier that a
    training has to beat reads these too.
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

    def taps(self, recipe: Recipe) -> tuple[int, ...]:
        return self.measured.last.taps if recipe.taps is None else recipe.taps

    def linear(self, recipe: Recipe, *, everything: bool = False) -> Linear:
        """The linear classifier of the training images, or `everything`: of these and the validation images."""
        taps = self.taps(recipe)
        stage = next((stage for stage in self.measured.stages if stage.taps == taps), None)
        if stage and not everything:
            return _balanced(stage.classifier, self.splits.train.labels, recipe)
        data = joined(self.splits.train, self.splits.validation) if everything else self.splits.train
        l2 = (stage or self.measured.last).classifier.l2
        return _balanced(self._fitted(taps, l2, data.labels, np.arange(len(data))), data.labels, recipe)

    def _fitted(self, taps, l2: float, labels: np.ndarray, rows: np.ndarray) -> Linear:
        """On the features at `rows`."""
        views = self.features.tapped(taps)[: 1 + self.measured.mirrors.alike, rows]
        return fit_path(views, labels[rows], self.classes, (10 * l2, l2))[-1]

    @property
    def mirrors_alike(self) -> bool:
        """Whether mirror images keep their class; True if it was not measured."""
        return mirrors_keep_class(self.measured)

    @property
    def mirrors_gain(self) -> bool:
        """Whether averaging over mirror images gains likelihood beyond its noise, by the linear classifier."""
        return mirrors_gain(self.measured)

    def crops_to_measure(self, recipe: Recipe, budget: Budget) -> int:
        """What was asked for, or the lecture's ten; without mirror images where these lose their class; none where no
        time is left."""
        count = recipe.crops if recipe.asks_for_crops else 10 if self.mirrors_alike else 5
        return count if self.time_for(count * len(recipe.scales or (1,)), budget) else 0

    def time_for(self, passes: float, budget: Budget) -> bool:
        """Return whether that many passes over the validation images end in time."""
        return budget.allows(passes * self.image_seconds * len(self.splits.validation))

    def copy(self) -> "Start":
        """The same with a network of its own, for one of several trainings: a training moves the network's weights."""
        return replace(self, network=self.network.with_network(copied(self.network.network)))

    def fold(self, inside: np.ndarray, outside: np.ndarray) -> "Start":
        """A `copy` that trains on the training images at `inside`, to which its linear classifiers are fitted anew, and
        is judged on those at `outside`."""
        data = self.splits.train
        part = Splits(data.subset(inside), data.subset(outside))
        if self.measured is None:
            return replace(self.copy(), splits=part)
        told = self.measured
        stages = tuple(
            replace(stage, classifier=self._fitted(stage.taps, stage.classifier.l2, data.labels, inside))
            for stage in told.stages
            if stage in (told.head, told.last, told.stages[-1])
        )
        features = self.features[np.concatenate([inside, outside])]
        return replace(self.copy(), splits=part, measured=replace(told, stages=stages), features=features)

    def rival(self, recipe: Recipe) -> Recipe:
        """The recipe whose linear classifier a training has to beat: on the best stages, where the plan lets `recipe`
        read all."""
        if self.taps_given or recipe.taps != self.measured.stages[-1].taps:
            return recipe
        return replace(recipe, taps=self.measured.head.taps)

    def held_out_logits(self, recipe: Recipe, views: int = 1) -> np.ndarray:
        """Logits (views, n, classes) of the validation images by the linear classifier of the training images."""
        features = self.features.tapped(self.taps(recipe))[:views, len(self.splits.train) :]
        return self.linear(recipe).logits(features)


def _balanced(linear: Linear, labels, recipe: Recipe) -> Linear:
    """The classifier of equally frequent classes, where the recipe wants that: logits − log of the classes' shares."""
    if not recipe.balanced:
        return linear
    counts = np.bincount(labels, minlength=len(linear.bias))
    return replace(linear, bias=linear.bias - np.log(counts / len(labels)))
