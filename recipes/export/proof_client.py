"""Load an export and write its predictions, in a fresh process that can import neither `recipes` nor `augment`.

    python proof_client.py FORMAT MODEL INPUT.npz OUTPUT.npz

`recipes.export.proof` runs this script. It loads the export as any other program would.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile


def main(kind: str, model: str, inputs: str, outputs: str) -> None:
    block("recipes", "augment", "layers", "optimizers")
    predict: dict[str, Callable[[str, NpzFile], dict]] = {
        "saved_model": saved_model, "keras": keras_file, "onnx": onnx, "litert": litert,
    }  # fmt: skip
    with np.load(inputs, allow_pickle=False) as arrays:
        found = predict[kind](model, arrays)
    np.savez(outputs, **found)


def block(*packages: str) -> None:
    """Make later imports of these packages fail."""
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(packages))


def saved_model(directory: str, arrays: NpzFile) -> dict:
    block("keras", "tf_keras")
    import tensorflow as tf

    signatures = tf.saved_model.load(directory).signatures
    ends = arrays["ends"]
    contents = [arrays["contents"][a:b].tobytes() for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    chunk = int(arrays["chunk"])
    rows = {"probabilities": [], "error": [], "features": []}
    for i in range(0, len(contents), chunk):
        batch = tf.constant(contents[i : i + chunk])
        outputs = signatures["serving_default"](image_bytes=batch)
        rows["probabilities"].append(outputs["probabilities"].numpy())
        rows["error"].append(np.array([text.decode() for text in outputs["error"].numpy()]))
        if "features" in signatures:
            rows["features"].append(signatures["features"](image_bytes=batch)["features"].numpy())
    found = {name: np.concatenate(parts) for name, parts in rows.items() if parts}
    for name in arrays.files:
        if name.startswith("pixels"):
            found[name] = signatures["pixels"](pixels=tf.constant(arrays[name]))["probabilities"].numpy()
    return found


def keras_file(path: str, arrays: NpzFile) -> dict:
    import keras

    model: Any = keras.saving.load_model(path, compile=False, safe_mode=True)
    return {"probabilities": model.predict(arrays["crops"], batch_size=16, verbose=0)}


def onnx(path: str, arrays: NpzFile) -> dict:
    block("keras", "tensorflow")
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    crops = arrays["crops"]
    parts = [session.run(["probabilities"], {"pixels": crops[i : i + 16]})[0] for i in range(0, len(crops), 16)]
    return {"probabilities": np.concatenate(parts)}


def litert(path: str, arrays: NpzFile) -> dict:
    block("keras", "tensorflow")
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_path=path).get_signature_runner("serving_default")
    return {"probabilities": np.concatenate([run(pixels=crop[None])["probabilities"] for crop in arrays["crops"]])}


if __name__ == "__main__":
    main(*sys.argv[1:])
