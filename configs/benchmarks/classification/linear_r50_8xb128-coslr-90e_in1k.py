# MoCo v3's linear probe of ResNet-50, at seven learning rates: its own is 0.4.
_base_ = "mmpretrain::mocov3/benchmarks/resnet50_8xb128-linear-coslr-90e_in1k.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)

model = dict(
    head=dict(
        _delete_=True,
        type="MultiLinearHead",
        num_classes=1000,
        in_channels=2048,
        lr_factors=(0.1, 0.3, 1, 3, 10, 30, 100),
    )
)
optim_wrapper = dict(constructor="MultiLinearOptimWrapperConstructor")
val_evaluator = dict(_delete_=True, type="MultiLinearAccuracy")
test_evaluator = dict(_delete_=True, type="MultiLinearAccuracy")
auto_scale_lr = dict(base_batch_size=1024)
