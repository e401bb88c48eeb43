"""From features to an exported model: encoder, fitting, evaluation, ONNX, int8."""
