"""Run as a script in a fresh process, which can import neither `recipes` nor `augment`, by `recipes.export.proof`.

    python proof_client.py FORMAT MODEL INPUT.npz OUTPUT.npz

It loads what was exported as any other program would, and writes what it answers.
"""

import sys

import numpy as np


def main(kind: str, model: str, given: str, answer: str) -> None:
    sys.modules.update(recipes=None, augment=None, layers=None, optimizers=None)  # importing one of them now fails
    with np.load(given, allow_pickle=False) as arrays:
        found = {"saved_model": saved_model, "keras": keras_file, "onnx": onnx, "litert": litert}[kind](model, arrays)
    np.savez(answer, **found)


def saved_model(directory: str, arrays) -> dict:
    sys.modules.update(keras=None, tf_keras=None)
    import tensorflow as tf

    signatures = tf.saved_model.load(directory).signatures
    ends = arrays["ends"]
    contents = [arrays["contents"][a:b].tobytes() for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    chunk = int(arrays["chunk"])
    found = {"probabilities": [], "error": [], "features": []}
    for i in range(0, len(contents), chunk):
        batch = tf.constant(contents[i : i + chunk])
        told = signatures["serving_default"](image_bytes=batch)
        found["probabilities"].append(told["probabilities"].numpy())
        found["error"].append(np.array([text.decode() for text in told["error"].numpy()]))
        if "features" in signatures:
            found["features"].append(signatures["features"](image_bytes=batch)["features"].numpy())
    found = {name: np.concatenate(rows) for name, rows in found.items() if rows}
    for name in arrays.files:
        if name.startswith("pixels"):
            found[name] = signatures["pixels"](pixels=tf.constant(arrays[name]))["probabilities"].numpy()
    return found


def keras_file(path: str, arrays) -> dict:
    import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    return {"probabilities": model.predict(arrays["crops"], batch_size=16, verbose=0)}


def onnx(path: str, arrays) -> dict:
    sys.modules.update(keras=None, tensorflow=None)
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    crops = arrays["crops"]
    parts = [session.run(["probabilities"], {"pixels": crops[i : i + 16]})[0] for i in range(0, len(crops), 16)]
    return {"probabilities": np.concatenate(parts)}


def litert(path: str, arrays) -> dict:
    sys.modules.update(keras=None, tensorflow=None)
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_path=path).get_signature_runner("serving_default")
    return {"probabilities": np.concatenate([run(pixels=crop[None])["probabilities"] for crop in arrays["crops"]])}


if __name__ == "__main__":
    main(*sys.argv[1:])
