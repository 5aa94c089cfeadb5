"""What crops and whole images cost at test time, and whether whole images are as accurate as the crops they replace.

    python scripts/benchmark_multicrop.py ../shared [--images 400] [--rounds 3] [--scales 4]

A linear classifier on MobileNetV2(alpha=0.35) is made for the ants and bees of ../shared/data/hymenoptera; its photos
are looked at once, at 10 crops of one scale, at 50 of five scales, and whole: the validation photos, which alone tell
accuracy, and for the time the training photos, too, so that a look's tracing (0.6 s) weighs less. Seconds are medians
of rounds, the looks of one scale in turn, one process, everything traced beforehand and every shape seen before (a
whole photo of a new shape costs TensorFlow some 0.2 s on a CPU, once); every photo is decoded once per look.

Then the time alone, of as many photos as --heavy says, with MobileNetV2(alpha=1.0), a network five times as costly,
where decoding hardly counts; its weights are random, for nothing is read off it but seconds.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from measurements import Recorder, add_option

TARGETS = {"10 crops at 256": 10.5, "50 crops": 52.0, "whole at 256": 0.45}  # × one crop, or × its 10 crops


def contests(size: int) -> list[dict]:
    """Name → `Crops`, of the looks that take turns."""
    import augment
    from recipes import lecture_scales
    from recipes.evaluation.test_time import Crops

    def crops(scales, count):
        return Crops(augment.multicrop(scales, count, size), size=size)

    def at(scale):
        return {
            f"10 crops at {scale}": crops((scale,), 10),
            f"whole at {scale}": Crops(None, (scale,), mirror=True, size=size),
        }

    smallest, *larger = lecture_scales(size)
    first = {"1 crop": crops((size,), 1), **at(smallest), "50 crops": crops((smallest, *larger), 10)}
    return [first, *map(at, larger)]


def seconds(model, data, looks: dict, rounds: int) -> tuple[dict, dict]:
    """Name → median seconds, and name → probabilities."""
    from recipes.evaluation.test_time import averaged

    spent, found = {name: [] for name in looks}, {}
    for turn in range(rounds + 1):  # the first one traces
        for name, look in looks.items():
            began = time.perf_counter()
            found[name] = averaged(model, data, look)
            if turn:
                spent[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in spent.items()}, found


def heavier(size: int):
    """Images → probabilities by MobileNetV2(alpha=1.0) with random weights."""
    import keras

    from recipes.networks.backbones import resolve
    from recipes.networks.classifier import logits_model, with_probabilities

    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    return with_probabilities(logits_model(resolve(network), 2, size))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--images", type=int, default=400, help="photos at most that are looked at")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heavy", type=int, default=100, help="photos that the heavier network looks at; 0: none")
    parser.add_argument("--scales", type=int, default=4, help="how many scales above the smallest are looked at")
    add_option(parser)
    asked = parser.parse_args()
    rows = Recorder("multicrop", asked.rows)
    home = tempfile.mkdtemp()
    os.environ.update(KERAS_HOME=home, RECIPES_CACHE=home, TF_CPP_MIN_LOG_LEVEL="3")
    shutil.copytree(asked.shared / "weights", Path(home) / "models")
    from benchmark_finetune import machine

    import recipes
    from recipes.auditing.audit import audit, usable
    from recipes.data.images import joined
    from recipes.data.sources import load
    from recipes.evaluation.ledger import compared

    photos = asked.shared / "data" / "hymenoptera"
    recipe = recipes.adjusted("probe", size=224, mirror=False)
    result = recipes.finetune(photos, backbone="MobileNetV2(alpha=0.35)", recipe=recipe)
    splits = load(photos)
    splits, _ = usable(splits, audit(splits))
    unseen = splits.validation.labels
    data = joined(splits.validation, splits.train)
    data = data.subset(range(min(len(data), asked.images)))
    size = result.recipe.evaluation_policy.size
    spent, found = {}, {}
    for looks in contests(size)[: 1 + asked.scales]:
        for all_of_them, of_these in zip((spent, found), seconds(result.model, data, looks, asked.rounds), strict=True):
            all_of_them |= of_these
    one = spent["1 crop"]
    print(f"\n{len(data)} photos, crops of {size} pixels; {machine()}")
    for name, took in spent.items():
        line = f"{name:16} {took:7.2f} s {took / one:6.1f} × one crop"
        target = {"at_most": TARGETS[name]} if name in TARGETS else {}
        details = {f"{name}, s": took, "1 crop, s": one, "photos": len(data)}
        if name != "1 crop" and not name.startswith("whole"):
            rows.add(f"{name} / 1 crop", took / one, "×", details=details, **target)
        if name.startswith("whole"):
            crops = name.replace("whole", "10 crops")
            row = compared(name, found[crops][: len(unseen)], found[name][: len(unseen)], unseen[: len(data)])
            low, high = (100 * end for end in row.interval)
            points = f"{100 * row.gain:+.1f} points ({low:+.1f} to {high:+.1f})"
            line += f"   {took / spent[crops]:.2f} × its 10 crops, {points}"
            details = {f"{name}, s": took, f"{crops}, s": spent[crops], "photos": len(data), "accuracy": points}
            rows.add(f"{name} / {crops}", took / spent[crops], "×", details=details, **target)
        print(line)
    if asked.heavy:
        data = data.subset(range(min(len(data), asked.heavy)))
        spent, _ = seconds(heavier(size), data, contests(size)[1], asked.rounds)
        (_, crops), (look, whole) = spent.items()
        print(f"MobileNetV2(alpha=1.0), {len(data)} photos: {look} {whole:.2f} s, {whole / crops:.2f} × its 10 crops")
        details = {f"{look}, s": whole, "10 crops, s": crops, "photos": len(data)}
        name = f"{look} / its 10 crops, MobileNetV2(alpha=1.0)"
        rows.add(name, whole / crops, "×", at_most=0.45, details=details)
    print("to reach: 10 crops 10.5, 50 crops 52, whole at 256 0.45 × its 10 crops at equal accuracy")


if __name__ == "__main__":
    main()
