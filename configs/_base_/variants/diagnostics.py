# All online diagnostics, see docs/diagnostics.md.
#     _base_ = [RECIPE, "_base_/variants/diagnostics.py"]
#     custom_hooks = _base_.custom_hooks + _base_.diagnostics
diagnostics = [
    dict(type="OnlineLinearProbeHook"),
    dict(type="OnlineKNNHook"),
    dict(type="NeighborPurityHook"),
    dict(type="NeighborAgeHook"),
    dict(type="PositivenessEntropyHook"),
    dict(type="CollapseHook"),
]
