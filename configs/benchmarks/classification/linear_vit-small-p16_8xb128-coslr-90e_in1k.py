# MoCo v3's linear probe of its ViT-S, at seven learning rates: its own is 12.
_base_ = "mmpretrain::mocov3/benchmarks/vit-small-p16_8xb128-linear-coslr-90e_in1k.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)

model = dict(
    head=dict(
        _delete_=True,
        type="MultiLinearHead",
        num_classes=1000,
        in_channels=384,
        lr_factors=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
    )
)
optim_wrapper = dict(constructor="MultiLinearOptimWrapperConstructor")
val_evaluator = dict(_delete_=True, type="MultiLinearAccuracy")
test_evaluator = dict(_delete_=True, type="MultiLinearAccuracy")
auto_scale_lr = dict(base_batch_size=1024)
