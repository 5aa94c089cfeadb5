"""Make the four ready-made recipes with the reasons for their values, and adjust their fields."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Integral
from typing import Any

from recipes import augment
from recipes.core.text import described
from recipes.errors import RecipeError
from recipes.planning import NAMES
from recipes.planning.reason import Reason
from recipes.planning.recipe import Recipe, invalid, whole

FEWEST_EPOCHS, MOST_EPOCHS = 12, 40
TRAINED = "plan.trained"
_EXPLAINED = {"plan.epochs": {"epochs", "size"}, "plan.layer_decay": {"layer_decay"},
              "plan.overfitting": {"averaging", "policy"}}  # reason code → explained fields  # fmt: skip


@dataclass(frozen=True)
class Adjusted:
    """A ready-made recipe by name, with the fields to replace after the data has decided the others; see `adjusted`."""

    recipe: str
    changes: tuple[tuple[str, Any], ...]

    def __repr__(self) -> str:
        return described("adjusted", repr(self.recipe), *(f"{name}={value!r}" for name, value in self.changes))


def adjusted(recipe: str = "auto", **changes: Any) -> Adjusted:
    """Return a ready-made recipe with some fields replaced.

    Args:
        recipe: "auto" or the name of a ready-made recipe.
        **changes: Fields of `Recipe` and their values. If only one of `size` and `policy` is given, the other is
            adapted to it.

    Raises:
        RecipeError: For an unknown name, an unknown field or an invalid value.

    Example:
        >>> finetune(recipe=adjusted("all", epochs=3))
    """
    names = ("auto", *NAMES)
    if recipe not in names:
        raise RecipeError(f"recipe is {recipe!r}; expected one of {names}", code="recipe.unknown", value=recipe)
    known = {field.name for field in fields(Recipe)} - {"name", "decisions", "warm_start"}
    if unknown := sorted(set(changes) - known):
        close = get_close_matches(unknown[0], known, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise RecipeError(
            f"Recipe has no fields {unknown} to adjust{hint}; expected some of {sorted(known)}",
            code="recipe.field",
            fields=unknown,
        )
    if isinstance(changes.get("policy"), augment.Policy):
        changes.setdefault("size", changes["policy"].size)
    size = changes.get("size", 224)
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise invalid("size", size, "a positive number of pixels")
    ready = {"probe": linear_probe, "scratch": from_scratch}.get(recipe, finetune_all)(int(size))
    changed(ready, {name: value for name, value in changes.items() if name != "snapshots"})
    if whole("snapshots", changes.get("snapshots", 0)) < 0:
        raise invalid("snapshots", changes["snapshots"], "at least 0")
    return Adjusted(recipe, tuple(changes.items()))


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return `recipe` with these fields replaced; its policy is resized if only the size changes."""
    size = changes.get("size", recipe.size)
    return replace(recipe, **{"policy": recipe.policy.resized(size), **changes})


def linear_probe(size: int = 224) -> Recipe:
    """Return the recipe of the linear classifier on frozen features, for few images similar to ImageNet."""
    return Recipe("probe", size, unfreeze=0, epochs=0, policy=augment.Policy.none(size))


def finetune_few(size: int = 224, images: int = 1000) -> Recipe:
    """Return the recipe that fits the linear classifier, then trains it with the two deepest stages."""
    return _finetuned("few", 2, size, images, patience=5, layer_decay=0.5)


def finetune_all(size: int = 224, images: int = 1000) -> Recipe:
    """Return the recipe that fits the linear classifier, then trains it with all stages."""
    return _finetuned("all", -1, size, images, patience=default_epochs(size, images) // 2, layer_decay=0.7)


def from_scratch(size: int = 224, images: int = 1000) -> Recipe:
    """Return the recipe that trains all weights from a random start, as the baseline of the other recipes."""
    epochs = 2 * default_epochs(size, images)
    return Recipe(
        "scratch", size, unfreeze=-1, epochs=epochs, policy=augment.Policy.light(size), warm_start=False,
        patience=epochs, refit=False,
    )  # fmt: skip


def _finetuned(name: str, unfreeze: int, size: int, images: int, **fields: Any) -> Recipe:
    epochs = default_epochs(size, images)
    return Recipe(name, size, unfreeze, epochs, augment.Policy.light(size), averaging=0.99, **fields)


def default_epochs(size: int, images: int) -> int:
    """Return the epochs that give a small dataset a few hundred updates and limit the training on a large dataset."""
    return int(min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(images_to_show(size) / images))))


def images_to_show(size: int) -> int:
    """Return the total number of images shown in a training; cheap crops below 128 pixels get more."""
    return round(10_000 * max(1.0, (128 / size) ** 2))


def explanations(recipe: Recipe) -> list[Reason]:
    """Return the reasons for the fields of a ready-made recipe, see `_EXPLAINED`."""
    times = 1 if recipe.warm_start else 2
    epochs = Reason(
        "plan.epochs",
        "{epochs} epochs are planned, the number from {least} to {most} whose total of shown images is closest "
        "to {shown:,}",
        {"epochs": recipe.epochs, "least": times * FEWEST_EPOCHS, "most": times * MOST_EPOCHS,
         "shown": times * images_to_show(recipe.size)},
    )  # fmt: skip
    if not recipe.warm_start:
        return [epochs]
    decay = Reason(
        "plan.layer_decay",
        "the learning rate falls by a factor of {factor:g} from each stage to the previous stage, whose features "
        "are more general",
        {"factor": recipe.layer_decay},
    )
    overfitting = Reason(
        "plan.overfitting",
        "to limit overfitting, images are augmented lightly and the weights are a running average (decay {decay:g})",
        {"decay": recipe.averaging},
    )
    return [epochs, decay, overfitting]


def without_explanations(recipe: Recipe, changes: Collection[str] = ()) -> Recipe:
    """Return `recipe` without the reasons for changed fields, or without all such reasons if nothing is trained."""
    outdated = {code for code, fields in _EXPLAINED.items() if not recipe.epochs or fields & set(changes)}
    outdated |= set() if recipe.epochs else {TRAINED}
    return replace(recipe, decisions=tuple(reason for reason in recipe.decisions if reason.code not in outdated))
