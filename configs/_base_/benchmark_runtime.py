# Benchmarks of a pretrained backbone: no queue.
_base_ = "default_runtime.py"

custom_hooks = []
