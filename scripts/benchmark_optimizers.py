"""Measure the optimizers against Keras's and scikit-learn's, both sides in one run, interleaved.

    python scripts/benchmark_optimizers.py                    everything, about 5 minutes on 2 quiet cores
    python scripts/benchmark_optimizers.py update averaging logistic path

update      one update of MobileNetV2's variables: Adam at most 0.8 × Keras's, Discriminative at most 1.05 × Adam
averaging   one training step with PolyakAveraging: at most 1.05 × without
logistic    5,000 × 1,280 features, 100 classes, to the same objective: at most 0.3 × scikit-learn's time
path        fit_linear_path, nine penalties, against SciPy's L-BFGS-B on the same float32 products: below 1
"""

import argparse
import os
import sys
import time
import tracemalloc
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np
import tensorflow as tf
from measurements import Recorder, add_option

import optimizers


def milliseconds(functions: dict, rounds: int) -> dict[str, float]:
    """Median duration of each function; they take turns, so that a disturbance hits all alike."""
    for function in functions.values():
        for _ in range(3):
            function()
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(t)) for name, t in times.items()}


def report(rows: Recorder, title: str, times: dict, baseline: str, name: str, target: float):
    ratio = times[name] / times[baseline]
    print(f"  {name:<34} {times[name]:9.2f} ms = {ratio:.2f} × {baseline} (target {target})")
    details = {f"{name}, ms": times[name], f"{baseline}, ms": times[baseline]}
    rows.add(f"{title}: {name} / {baseline}", ratio, "×", at_most=target, details=details)


def network(alpha):
    return keras.applications.MobileNetV2(alpha=alpha, weights=None, classes=10, input_shape=(96, 96, 3))


def update_function(optimizer, model, jit):
    variables = [
        keras.Variable(v.value, name=v.path.replace("/", "_") + ("_bias" if len(v.shape) < 2 else ""))
        for v in model.trainable_variables
    ]
    gradients = [tf.random.normal(v.shape) for v in variables]
    optimizer.build(variables)
    return tf.function(lambda: optimizer.apply(gradients, variables), jit_compile=jit)


def update(rows):
    for alpha in (0.35, 1.0):
        model = network(alpha)
        two_rates = {"predictions|Conv_1|block_1[0-6]": 1.0, ".*": 0.1}
        contenders = {
            "keras Adam": lambda: keras.optimizers.Adam(1e-3),
            "Adam": lambda: optimizers.Adam(1e-3),
            "Discriminative(Adam)": lambda rates=two_rates: optimizers.Discriminative(optimizers.Adam(1e-3), rates),
            "Discriminative(keras Adam)": lambda rates=two_rates: optimizers.Discriminative(
                keras.optimizers.Adam(1e-3), rates
            ),
        }
        for jit in (False, True):
            title = f"update of MobileNetV2(alpha={alpha})" + (", XLA" if jit else "")
            print(f"update of MobileNetV2(alpha={alpha}), {model.count_params():,} parameters, jit_compile={jit}")
            times = milliseconds({n: update_function(f(), model, jit) for n, f in contenders.items()}, 60)
            print(f"  {'keras Adam':<34} {times['keras Adam']:9.2f} ms")
            report(rows, title, times, "keras Adam", "Adam", 0.8)
            report(rows, title, times, "Adam", "Discriminative(Adam)", 1.05)
            report(rows, title, times, "keras Adam", "Discriminative(keras Adam)", 1.05)


def averaging(rows):
    x, y = np.random.default_rng(0).uniform(size=(32, 96, 96, 3)).astype("float32"), np.arange(32) % 10
    steps = {}
    for name, average in (("without", None), ("PolyakAveraging()", optimizers.PolyakAveraging())):
        model = network(0.35)
        model.compile(optimizers.Adam(1e-3), "sparse_categorical_crossentropy", jit_compile=False)
        if average:
            average.set_model(model)  # as fit() does: the average becomes part of the step
        steps[name] = lambda model=model: model.train_on_batch(x, y)
    title = "training step of MobileNetV2(alpha=0.35), 32 images of 96 × 96"
    print(title)
    times = milliseconds(steps, 60)
    print(f"  {'without':<34} {times['without']:9.2f} ms")
    report(rows, title, times, "without", "PolyakAveraging()", 1.05)


def features(n=5000, channels=1280, classes=100):
    """Like the pooled features of a ReLU network: not negative, sparse, of decaying spectrum."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=n)
    spectrum = (1 + np.arange(channels)) ** -0.7
    basis = np.linalg.qr(rng.normal(size=(channels, channels)))[0]
    centers = rng.normal(size=(classes, channels)) * (np.arange(channels) < 200)
    hidden = (rng.normal(size=(n, channels)) + centers[labels]) * spectrum
    hidden = hidden @ basis.T * np.sqrt(channels / (spectrum**2).sum())
    return np.maximum(0.6 * hidden - 0.1, 0).astype("float32"), labels


def objective(kernel, bias, x, labels, l2):
    scores = x.astype(float) @ kernel + bias
    return np.mean(np.logaddexp.reduce(scores, 1) - scores[np.arange(len(x)), labels]) + l2 / 2 * (kernel**2).sum()


def logistic(rows):
    from sklearn.linear_model import LogisticRegression

    x, labels = features()
    for l2 in (1e-2, 1e-3):
        times, fits = [], []
        for _ in range(2):
            start = time.perf_counter()
            fits = [optimizers.fit_linear(x, labels, l2=l2)]
            times.append(time.perf_counter() - start)
        ours = min(times)
        start = time.perf_counter()
        reference = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-5, max_iter=1000).fit(x, labels)
        theirs = time.perf_counter() - start
        minimum = fits[0].minimum
        loss = objective(reference.coef_.T.astype(float), reference.intercept_.astype(float), x, labels, l2)
        print(f"logistic regression, {x.shape[0]:,} × {x.shape[1]:,} features, 100 classes, l2={l2}")
        print(f"  scikit-learn  {theirs:6.2f} s, {reference.n_iter_[0]:4d} iterations, objective {loss:.9f}")
        print(
            f"  fit_linear    {ours:6.2f} s, {minimum.iterations:4d} iterations, objective {minimum.loss:.9f}"
            f" = {ours / theirs:.2f} × (target 0.3); gradient {minimum.gradient_norm:.1e}"
        )
        details = {"fit_linear, s": ours, "scikit-learn, s": theirs, "iterations": minimum.iterations,
                   "scikit-learn's iterations": int(reference.n_iter_[0])}  # fmt: skip
        name = f"fit_linear / scikit-learn, 5,000 × 1,280, 100 classes, l2 = {l2}"
        rows.add(name, ours / theirs, "×", at_most=0.3, details=details)
    tracemalloc.start()
    optimizers.fit_linear(x, labels, l2=1e-3, max_iterations=15)
    beyond = tracemalloc.get_traced_memory()[1] / x.nbytes
    print(f"  NumPy's peak beyond the features: {beyond:.2f} × the features")
    rows.add("memory of fit_linear beyond the features / the features", beyond, "×", at_most=2.0)
    tracemalloc.stop()


PATH = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


def scipy_path(x, labels, classes, l2_path):
    """SciPy's L-BFGS-B from strong to weak penalties; the objectives reached."""
    from scipy.optimize import minimize

    rows, reached = np.arange(len(x)), []
    flat = np.zeros((x.shape[1] + 1) * classes)
    for l2 in l2_path:

        def function(flat, l2=l2):
            kernel = flat[:-classes]
            scores = x @ kernel.reshape(-1, classes).astype("float32") + flat[-classes:].astype("float32")
            scores -= scores.max(1, keepdims=True)
            picked = scores[rows, labels].sum(dtype=float)
            np.exp(scores, out=scores)
            totals = scores.sum(1, dtype=float)
            scores /= totals[:, None]
            scores[rows, labels] -= 1
            gradient = np.concatenate([(x.T @ scores).ravel().astype(float), scores.sum(0)]) / len(x)
            gradient[:-classes] += l2 * kernel
            return (np.log(totals).sum() - picked) / len(x) + l2 / 2 * (kernel @ kernel), gradient

        options = {"maxiter": 500, "maxfun": 2000, "gtol": 1e-5, "ftol": 0}
        found = minimize(function, flat, jac=True, method="L-BFGS-B", options=options)
        flat = found.x
        reached.append(found.fun)
    return reached


def path(rows):
    from threadpoolctl import threadpool_limits

    sizes = ((50, 1280, 2), (500, 1280, 2), (1000, 1280, 10), (300, 4000, 100), (20000, 512, 20), (4000, 4000, 2))
    for n, channels, classes in sizes:
        x, labels = features(n, channels, classes)
        x -= x.mean(0)
        x /= np.sqrt(x.var(0).mean())
        with threadpool_limits(1 if x.size < 2e6 else None, "blas"):
            times = []
            for _ in range(2):
                start = time.perf_counter()
                fits = optimizers.fit_linear_path(x, labels, PATH, classes=classes)
                times.append(time.perf_counter() - start)
            start = time.perf_counter()
            reached = scipy_path(x, labels, classes, PATH)
            theirs = time.perf_counter() - start
        worst = max(fit.minimum.loss / loss - 1 for fit, loss in zip(fits, reached, strict=True))
        print(
            f"path of {len(PATH)} penalties, {n:,} × {channels:,}, {classes} classes: {min(times):.3f} s"
            f" = {min(times) / theirs:.2f} × scipy's {theirs:.3f} s; largest excess of the objective {worst:.0e}"
        )
        details = {"fit_linear_path, s": min(times), "SciPy, s": theirs, "largest excess of the objective": worst}
        name = f"fit_linear_path / SciPy's L-BFGS-B, {n:,} × {channels:,}, {classes} classes"
        rows.add(name, min(times) / theirs, "×", at_most=1.0, details=details)


if __name__ == "__main__":
    parts = {"update": update, "averaging": averaging, "logistic": logistic, "path": path}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(parts)}; by default all")
    add_option(parser)
    arguments = parser.parse_args()
    if unknown := set(arguments.part) - set(parts):
        parser.error(f"unknown parts {sorted(unknown)}; there are {', '.join(parts)}")
    recorder = Recorder("optimizers", arguments.rows)
    for part in arguments.part or parts:
        parts[part](recorder)
