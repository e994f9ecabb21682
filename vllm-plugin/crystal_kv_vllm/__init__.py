"""Crystal-KV for stock vLLM.

vLLM imports nothing of this package by itself: `--scheduler-cls` and `--worker-cls` name its classes. A vLLM that is
started without them does not know that the package is installed.
"""
