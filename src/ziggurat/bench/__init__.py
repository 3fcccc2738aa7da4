"""Beside other engines: ONNX Runtime, OpenVINO, transformers."""
