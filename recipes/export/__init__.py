"""Exports with a proof that they answer like the model: SavedModel, Keras, ONNX, LiteRT."""
