# Linear probe of ResNet-50 on Oxford 102 Flowers.
_base_ = [
    "../../../_base_/models/linear_r50.py",
    "../../../_base_/datasets/transfer/flowers102.py",
    "../../../_base_/schedules/linear_coslr-100e.py",
    "../../../_base_/benchmark_runtime.py",
]

model = dict(head=dict(num_classes=_base_.num_classes))
val_evaluator = dict(type="MultiLinearAccuracy", mean_per_class=_base_.mean_per_class)
test_evaluator = val_evaluator
