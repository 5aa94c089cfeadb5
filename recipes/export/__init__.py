"""Export a model to SavedModel, Keras, ONNX or LiteRT, with a proof that the predictions agree."""
