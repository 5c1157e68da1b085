"""Any model folder to a folder with int8 ONNX towers that run without torch."""
