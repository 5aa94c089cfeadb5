"""scripts/benchmark_gpu.py: runs without TensorFlow, counts right, leaves nothing out; its timings are for people."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import layers
import optimizers

pytest.importorskip("jax")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
DRIVER = """
import json, pathlib, sys
import benchmark_gpu
from gpu_overheads import TINY, Contest, layer_contests, optimizer_contests

told = {"without a GPU": benchmark_gpu.main([])}
told["tiny"] = benchmark_gpu.main(["--tiny", "--output", "gpu.md", "--rows", "rows", "--only", *sys.argv[1:]])
told["late"] = benchmark_gpu.main(["--tiny", "--limit", "1e-9", "--output", "late.md", "--only", "layers"])
told["contestants"] = sum(len(contest.makers) for contest in layer_contests(TINY))
contests = [*layer_contests(TINY), *optimizer_contests(TINY)]
told["names"] = [name for contest in contests for name in contest.makers]
contest = Contest("broken", {"bad": lambda: 1 / 0, "good": lambda: lambda steps: None, "absent": lambda: missing()})

def missing():
    raise benchmark_gpu.Skipped("skipped: not here")

run = benchmark_gpu.Benchmark(benchmark_gpu.parse(["--tiny", "--output", "broken.md"]))
told["measured"] = list(run.contest(contest)[0])
run.end()
told["failed"] = run.failed
told["imported"] = sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "recipes", "augment"})
pathlib.Path("told.json").write_text(json.dumps(told))
"""


def run(folder, *parts):
    """What the script does in a process in which `import tensorflow` fails, and what it wrote."""
    (folder / "refused" / "tensorflow").mkdir(parents=True)
    (folder / "refused" / "tensorflow" / "__init__.py").write_text("raise ImportError('there is no TensorFlow')")
    paths = os.pathsep.join(map(str, (folder / "refused", SCRIPTS)))
    cheap = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    environment = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "OUT")}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *parts], cwd=folder, env=environment | cheap | {"PYTHONPATH": paths},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "told.json").read_text()), done.stdout, (folder / "gpu.md").read_text("utf-8")


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    return folder, *run(folder, "rates", "finetune", "layers")


def test_it_runs_without_tensorflow(tried):
    _, told, _, table = tried
    assert told["tiny"] == 0
    assert told["imported"] == []
    assert "FAILED" not in table
    sides = [line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| 4 |")]
    assert sides == ["plain Keras", "ours", "plain Keras, train_on_batch", "torch"]


def test_the_rows_hold_what_the_table_shows(tried, monkeypatch):
    folder, _, _, table = tried
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from measurements import read

    rows = read(folder / "rows")
    ratios = [row for row in rows if row.unit == "×"]
    assert len(rows) - len(ratios) == 3 + 4  # the device's rates, the sides of the network
    assert len(ratios) == table.count(" px | ") + table.count(" examples | ")
    assert all(row.machine.packages["jax"] for row in rows)


def test_a_machine_without_a_gpu_is_told_in_one_line(tried):
    _, told, printed, _ = tried
    assert told["without a GPU"] == 0
    assert printed.splitlines()[0].startswith("benchmark_gpu: skipped, JAX sees no GPU")


def test_what_fails_or_is_missing_is_told_and_costs_the_others_nothing(tried):
    folder, told, _, _ = tried
    broken = (folder / "broken.md").read_text("utf-8")
    assert told["measured"] == ["good"]
    assert told["failed"] == 1
    assert "broken, bad: FAILED, ZeroDivisionError" in broken
    assert "broken, absent: skipped: not here" in broken


def test_nothing_begins_after_the_limit(tried):
    folder, told, _, _ = tried
    late = (folder / "late.md").read_text("utf-8")
    assert told["late"] == 0
    assert late.count("not measured, the time was up") == told["contestants"] > 0


@pytest.mark.parametrize("package", [layers, optimizers])
def test_every_layer_and_optimizer_has_a_contest(tried, package):
    measured = " ".join(tried[1]["names"])
    base = keras.layers.Layer if package is layers else (keras.optimizers.Optimizer, keras.callbacks.Callback)
    public = {name for name in package.__all__ if inspect.isclass(getattr(package, name))}
    names = {name for name in public if issubclass(getattr(package, name), base)}
    assert len(names) > 4
    assert [name for name in sorted(names) if name not in measured] == []


@pytest.fixture
def networks(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import gpu_steps
    import torch_residual

    return gpu_steps, torch_residual


def test_torchs_network_is_the_same(networks):
    """Equal weights, equal logits: the two sides of the benchmark do the same work."""
    gpu_steps, torch_residual = networks
    theirs = torch_residual.ResidualNetwork((2, 1), 4, 5).eval()
    ours = gpu_steps.residual_network((2, 1), 4, 32, 5)
    random = np.random.default_rng(0)
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
    names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    state = {name.replace(".", "_"): value for name, value in theirs.state_dict().items()}
    for variable in ours.weights:
        value = random.uniform(0.5, 1.5, variable.shape).astype("float32")
        value *= 0.1 if variable.name == "kernel" else 1
        variable.assign(value)
        layer, name = variable.path.split("/")[-2:]
        target = state.pop(f"{layer}_{names.get(name, name)}")
        target.copy_(torch.tensor(np.moveaxis(value, (-1, -2), (0, 1)) if value.ndim > 2 else value.T))
    assert all("num_batches_tracked" in name for name in state)
    images = random.integers(0, 256, (2, 32, 32, 3), "uint8")
    with torch.no_grad():
        expected = theirs(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours(images)), expected, rtol=1e-4)


def counted(network, size) -> int:
    """Operations of one training step on one image, as torch counts them, without computing."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network(torch.zeros((1, 3, size, size), device="meta")).sum().backward()
    return counter.get_total_flops()


def test_operations_are_those_that_torch_counts(networks):
    gpu_steps, torch_residual = networks
    ours, theirs = gpu_steps.residual_network((2, 1), 8, 64, 5), torch_residual.ResidualNetwork((2, 1), 8, 5)
    assert gpu_steps.step_flops(ours) == counted(theirs.to("meta"), 64)


@pytest.mark.minutes
def test_the_network_is_resnet_50(networks):
    gpu_steps, torch_residual = networks
    ours, kerass = gpu_steps.residual_network(), keras.applications.ResNet50(weights=None)
    assert sorted(tuple(v.shape) for v in ours.weights) == sorted(tuple(v.shape) for v in kerass.weights)
    assert gpu_steps.step_flops(ours) == counted(torch_residual.ResidualNetwork().to("meta"), 224)


@pytest.mark.minutes
def test_every_contest_runs(tmp_path):
    told, _, table = run(tmp_path, "rates", "finetune", "optimizers", "layers")
    assert told["tiny"] == 0
    assert [name for name in told["names"] if f"| {name} |" not in table] == []
