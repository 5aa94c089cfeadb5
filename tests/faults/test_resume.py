"""Killed at any instant, a run that is given its command again ends bit for bit as if nothing had been."""

import random
import time

import pytest
from victim import interrupted, killed, terminated

import recipes

KILLS = (
    {"kill": ("recipes.prepare.audit", 1)},
    {"kill": ("recipes.prepare.probe_backbone", 1)},
    {"at": (3, killed)},
    {"kill": ("recipes.atomic._sync", 9)},  # a state is written and not yet in its place
    {"at": (5, killed)},  # before the end of an epoch
    {"at": (13, killed)},
    {"kill": ("recipes.callbacks.Validation.score", 1)},
    {"at": (20, killed)},  # before the end of the training
    {"kill": ("recipes.training.finish", 1)},
    {"kill": ("recipes.descent.Training._state", 5)},  # in the training on all images
    {"kill": ("recipes.run_folder._save_probe", 1)},  # the model is saved, the run is not
    {"kill": ("recipes.finetune.find_suspects", 1)},  # it is, but for what follows
    {"kill": ("recipes.run_state._complete", 1)},
)


def test_killed_in_every_phase(victims, undisturbed):
    for how in KILLS:
        assert victims.run("killed", **how) == -9, (how, victims.log("killed")[-3000:])
    assert victims.run("killed") == 0
    assert victims.told("killed") == undisturbed
    assert victims.run("killed") == 0  # complete
    assert "holds the finished run" in victims.log("killed")
    assert victims.told("killed")["weights"] == undisturbed["weights"]
    assert not (victims.root / "killed" / ".state").exists()


def test_signals_damaged_states_and_other_processes(victims, undisturbed):
    """SIGTERM, SIGINT, a truncated newest state, a flipped bit in both, a second process, another command."""
    state = victims.root / "stopped" / ".state"
    assert victims.run("stopped", at=(4, terminated)) == 143
    assert victims.run("stopped", at=(8, interrupted)) == 1  # Python's, of a KeyboardInterrupt
    assert victims.log("stopped").count("the same command goes on from there") == 2
    newest = (state / "first.npz").read_bytes()
    (state / "first.npz").write_bytes(newest[: len(newest) // 2])
    first = victims.start("stopped", at=(15, killed))
    while "going on" not in victims.log("stopped").rsplit("the same command", 1)[-1]:
        time.sleep(0.05)
    assert victims.run("stopped") == 1
    assert f"is being written by another process (pid {first.pid})" in victims.log("stopped")
    first.join()
    assert first.exitcode == -9
    assert "first.npz cannot be used, the state before it is used" in victims.log("stopped")
    assert victims.run("stopped", learning_rate=1e-3) == 1
    assert "holds the run of another command (recipe was" in victims.log("stopped")
    with pytest.raises(recipes.OutputError, match="its command given again goes on"):
        recipes.load(victims.root / "stopped")
    for path in (state / "first.npz", state / "first.before.npz"):
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    assert victims.run("stopped") == 0
    assert "first.before.npz cannot be used, the training begins anew" in victims.log("stopped")
    assert victims.told("stopped") == undisturbed


@pytest.mark.slow
def test_killed_at_random_instants(victims, undisturbed):
    """Forty kills, wherever they fall."""
    seconds, draw, kills, runs = 12.0, random.Random(0), 0, 0
    while kills < 40:
        began = time.monotonic()
        process = victims.start(f"random{runs}", every_step=bool(runs % 2))
        process.join(draw.uniform(0.5, seconds))
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
        else:
            assert process.exitcode == 0
            assert victims.told(f"random{runs}") == undisturbed
            seconds = time.monotonic() - began
            runs += 1
    assert victims.run(f"random{runs}") == 0
    assert victims.told(f"random{runs}") == undisturbed
