"""From a PyTorch model to ONNX graphs: tracing, tidying, proof of equality, half precision."""
