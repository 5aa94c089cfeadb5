"""Killed at any instant, a run that is given its command again ends bit for bit as if nothing had been."""

import random
import time
from collections import Counter

import pytest
from assertions import rejects
from victim import interrupted, killed, terminated

import recipes

KILLS = (
    {"kill": ("recipes.training.prepare.audit", 1)},
    {"kill": ("recipes.training.prepare.probe_backbone", 1)},
    {"at": (3, killed)},
    {"kill": ("recipes.core.files._sync", 9)},  # a state is written and not yet in its place
    {"at": (5, killed)},  # before the end of an epoch
    {"at": (13, killed)},
    {"kill": ("recipes.training.callbacks.Validation.score", 1)},
    {"at": (20, killed)},  # before the end of the training
    {"kill": ("recipes.training.train.finish", 1)},
    {"kill": ("recipes.training.loop.attempt.Attempt.state", 5)},  # in the training on all images
    {"kill": ("recipes.runs.folder.save_probe", 1)},  # the model is saved, the run is not
    {"kill": ("recipes.finetuning.find_suspects", 1)},  # it is, but for what follows
    {"kill": ("recipes.runs.resume._complete", 1)},
)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(KILLS[5:6], id="once"),
        pytest.param(KILLS[::2], id="half", marks=pytest.mark.slow),
        pytest.param(KILLS[1::2], id="rest", marks=pytest.mark.minutes),
    ],
)
def test_killed_in_every_phase(victims, undisturbed, kills):
    name = f"killed {len(kills)} times"
    for how in kills:
        assert victims.run(name, **how) == -9, (how, victims.log(name)[-3000:])
    assert victims.run(name) == 0
    assert victims.outcome(name) == undisturbed
    assert victims.run(name) == 0  # complete
    assert "holds the finished run" in victims.log(name)
    assert victims.outcome(name)["weights"] == undisturbed["weights"]
    assert not (victims.root / name / ".state").exists()


@pytest.mark.slow
def test_signals_damaged_states_and_other_processes(victims, undisturbed):
    """SIGTERM, SIGINT, a truncated newest state, a flipped bit in both, a second process, another command."""
    state = victims.root / "stopped" / ".state"
    assert victims.run("stopped", at=(4, terminated)) == 143
    assert victims.run("stopped", at=(8, interrupted)) == 1  # Python's, of a KeyboardInterrupt
    assert victims.log("stopped").count("run the same command again to resume") == 2
    newest = (state / "first.npz").read_bytes()
    (state / "first.npz").write_bytes(newest[: len(newest) // 2])
    first = victims.start("stopped", at=(15, killed))
    while "resuming" not in victims.log("stopped").rsplit("the same command", 1)[-1]:
        time.sleep(0.05)
    assert victims.run("stopped") == 1
    assert f"is being written by another process (pid {first.pid} on " in victims.log("stopped")
    first.join()
    assert first.exitcode == -9
    assert "first.npz cannot be used (" in victims.log("stopped")
    assert victims.run("stopped", learning_rate=1e-3) == 1
    assert "holds another run (recipe: " in victims.log("stopped")
    with rejects(recipes.OutputError, "output.unfinished", path=victims.root / "stopped"):
        recipes.load(victims.root / "stopped")
    for path in (state / "first.npz", state / "first.before.npz"):
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    assert victims.run("stopped") == 0
    assert "first.before.npz cannot be used (" in victims.log("stopped")
    assert victims.outcome("stopped") == undisturbed


PHASES = {
    "audit and probe": 0.5,
    "before the first state": 0.7,
    "first training": 1.5,
    "training on all images": 0.4,
    "evaluation and saving": 0.2,
}  # seconds, about


@pytest.mark.minutes
def test_killed_at_random_instants(victims, undisturbed, capsys):
    """Forty kills or more, each at a random instant after a phase drawn at random has begun, until every phase was hit.
    Prints how many fell where."""
    draw, hit, runs = random.Random(0), Counter(), 0
    while hit.total() < 40 or (set(PHASES) - set(hit) and hit.total() < 120):
        name, target = f"random{runs}", draw.choice(list(PHASES))
        run, log = victims.root / name, victims.root / f"{name}.log"
        before = log.stat().st_size if log.exists() else 0
        process = victims.start(name, every_step=bool(runs % 2))
        while process.is_alive() and phase(run, log, before) != target:
            time.sleep(0.005)
        process.join(draw.uniform(0, PHASES[target]))
        if process.is_alive():
            process.kill()
            process.join()
            hit[phase(run, log, before)] += 1
        else:
            assert process.exitcode == 0, victims.log(name)[-3000:]
            assert victims.outcome(name) == undisturbed
            runs += 1
    assert victims.run(f"random{runs}") == 0
    assert victims.outcome(f"random{runs}") == undisturbed
    with capsys.disabled():
        print(f"\n{hit.total()} kills of {runs + 1} runs, all of them ended alike: {dict(hit)}")
    assert set(PHASES) <= set(hit)


def phase(run, log, before: int) -> str:
    """Where a process is that writes to its log from byte `before` on."""
    new_lines = log.read_bytes()[before:] if log.exists() else b""
    if b"recipe 'all'" not in new_lines:
        return "audit and probe" if (run / ".state").exists() else "before the run began"
    if (run / "result.json").exists():
        return "evaluation and saving"
    states = {"again.npz": "training on all images", "first.npz": "first training"}
    return next((what for file, what in states.items() if (run / ".state" / file).exists()), "before the first state")


@pytest.mark.minutes
@pytest.mark.shared
def test_a_real_network_that_is_killed(victims, shared, tmp_path):
    """MobileNetV2 on photos: killed in both trainings, the same bits as undisturbed."""
    for kind in ("daisy", "rose"):
        (tmp_path / kind).mkdir()
        for photo in sorted((shared / "data" / "flowers" / kind).iterdir())[:15]:
            (tmp_path / kind / photo.name).symlink_to(photo)
    how = dict(dataset=str(tmp_path), backbone="MobileNetV2(alpha=0.35)", size=64, test_size=64, learning_rate=1e-3)
    assert victims.run("whole", every_step=False, **how) == 0, victims.log("whole")
    for kill in (
        {"at": (2, killed)},
        {"kill": ("recipes.core.files._sync", 9)},
        {"at": (11, killed)},
        {"kill": ("recipes.training.loop.attempt.Attempt.state", 5)},  # in the training on all images
    ):
        assert victims.run("resumed", **how, **kill) == -9, (kill, victims.log("resumed")[-3000:])
    assert victims.run("resumed", **how) == 0
    assert victims.outcome("resumed") == victims.outcome("whole")
    assert "refit.done" in victims.outcome("whole")["reasons"]


@pytest.mark.minutes
def test_snapshots_that_are_killed(victims):
    """In the first and in the second cycle, as the first snapshot is kept, and while they are averaged and trained once
    more: the same bits as undisturbed."""
    how = dict(snapshots=2, epochs=6)
    assert victims.run("cycles", every_step=False, **how) == 0, victims.log("cycles")
    for kill in (
        {"at": (3, killed)},
        {"kill": ("recipes.core.files._sync", 9)},
        {"at": (13, killed)},
        {"kill": ("recipes.training.callbacks.Validation.score", 1)},
        {"kill": ("recipes.training.callbacks.Validation.score", 2)},
        {"at": (22, killed)},
        {"kill": ("recipes.training.train.finish", 1)},
        {"kill": ("recipes.training.loop.attempt.Attempt.state", 5)},  # in the training on all images
    ):
        assert victims.run("cut", **how, **kill) == -9, (kill, victims.log("cut")[-3000:])
    assert victims.run("cut", **how) == 0, victims.log("cut")[-3000:]
    assert victims.outcome("cut") == victims.outcome("cycles")
    assert victims.outcome("cut")["reasons"]["train.snapshots"]["snapshots"] == 2
