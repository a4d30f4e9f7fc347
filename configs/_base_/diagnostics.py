# All online diagnostics, see docs/diagnostics.md. A config turns them on with
#     _base_ = [ITS_BASE, "_base_/diagnostics.py"]
#     custom_hooks = _base_.custom_hooks + _base_.diagnostics
diagnostics = [
    dict(type="OnlineLinearProbeHook"),
    dict(type="OnlineKNNHook"),
    dict(type="NeighborPurityHook"),
    dict(type="NeighborAgeHook"),
    dict(type="PositivenessEntropyHook"),
    dict(type="CollapseHook"),
]
