"""Draw the lecture's trajectories, from SGD to Adam, in a narrow valley and at a saddle.

python scripts/plot_optimizers.py            writes docs/trajectories.png
"""

import sys
from pathlib import Path

import keras
import matplotlib
import numpy as np
from keras import ops

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import optimizers  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

VALLEY = {
    "title": "narrow valley, f = x²/20 + y²\n(dots every 10 of 60 updates)",
    "value": lambda x, y: x * x / 20 + y * y,
    "gradient": lambda x, y: (x / 10, 2 * y),
    "start": (-8.0, 1.6),
    "extent": (-9, 3, -2.4, 2.4),
    "minima": [(0, 0)],
    "optimizers": {
        "SGD": lambda: optimizers.Momentum(0.85, rho=0.0),
        "Momentum": lambda: optimizers.Momentum(0.12, rho=0.8),
        "Nesterov": lambda: optimizers.Nesterov(0.12, rho=0.8),
        "AdaGrad": lambda: optimizers.AdaGrad(1.0),
        "RMSProp": lambda: optimizers.RMSProp(0.15, rho=0.9),
        "Adam": lambda: optimizers.Adam(0.4),
    },
}
SADDLE = {
    "title": "saddle, f = x² − y² + y⁴/4\n(dots every 10 of 60 updates)",
    "value": lambda x, y: x * x - y * y + y**4 / 4,
    "gradient": lambda x, y: (2 * x, -2 * y + y**3),
    "start": (1.4, 1e-3),
    "extent": (-1.1, 1.7, -0.6, 2.0),
    "minima": [(0, 2**0.5)],
    "optimizers": {
        "SGD": lambda: optimizers.Momentum(0.04, rho=0.0),
        "Momentum": lambda: optimizers.Momentum(0.04, rho=0.8),
        "Nesterov": lambda: optimizers.Nesterov(0.04, rho=0.8),
        "AdaGrad": lambda: optimizers.AdaGrad(0.12),
        "RMSProp": lambda: optimizers.RMSProp(0.04, rho=0.9),
        "Adam": lambda: optimizers.Adam(0.06),
    },
}
STYLES = {
    "SGD": ("#222222", "-"), "Momentum": ("#d62728", "-"), "Nesterov": ("#ff9896", "--"),
    "AdaGrad": ("#1f77b4", "-"), "RMSProp": ("#2ca02c", "-"), "Adam": ("#9467bd", "-"),
}  # fmt: skip


def trajectory(optimizer, gradient, start, steps=60) -> np.ndarray:
    """(steps + 1, 2) points."""
    point = keras.Variable(np.array(start, "float32"), name="kernel")
    path = [start]
    for _ in range(steps):
        optimizer.apply([ops.convert_to_tensor(np.array(gradient(*path[-1]), "float32"))], [point])
        path.append(tuple(ops.convert_to_numpy(point).astype(float)))
    return np.array(path)


def draw(axes, problem):
    left, right, bottom, top = problem["extent"]
    x, y = np.meshgrid(np.linspace(left, right, 300), np.linspace(bottom, top, 300))
    z = problem["value"](x, y)
    axes.contour(x, y, z, levels=np.quantile(z, np.linspace(0.01, 0.99, 18)), colors="0.8", linewidths=0.7, zorder=0)
    for name, make in problem["optimizers"].items():
        path = trajectory(make(), problem["gradient"], problem["start"])
        color, line = STYLES[name]
        axes.plot(*path.T, line, color=color, linewidth=1.5, label=name)
        axes.plot(*path[::10].T, ".", color=color, markersize=7)
    axes.plot(*problem["start"], "s", color="black", markersize=6)
    for minimum in problem["minima"]:
        axes.plot(*minimum, "*", color="gold", markeredgecolor="black", markersize=15, zorder=5)
    axes.set(xlim=(left, right), ylim=(bottom, top), title=problem["title"], xlabel="x", ylabel="y")


def main():
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.4), layout="constrained")
    for panel, problem in zip(axes, (VALLEY, SADDLE), strict=True):
        draw(panel, problem)
    axes[0].legend(loc="lower right", framealpha=1)
    (ROOT / "docs").mkdir(exist_ok=True)
    figure.savefig(ROOT / "docs" / "trajectories.png", dpi=110)
    print("docs/trajectories.png")


if __name__ == "__main__":
    main()
