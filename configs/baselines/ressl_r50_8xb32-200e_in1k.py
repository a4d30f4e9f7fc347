# ReSSL (Zheng et al., NeurIPS 2021), ResNet-50, ImageNet, 200 epochs; not run. Widths,
# Q, temperatures, LR (0.05 x batch / 256, 5 epochs of warm-up) and momentum, though it
# rises to 1 here, are the paper's; views, batch and weight decay are those of the MSF
# config.
_base_ = "msf_r50_8xb32-200e_in1k.py"

model = dict(
    base_momentum=0.001,  # 0.999
    head=dict(
        _delete_=True,
        type="RelationalHead",
        queue=dict(type="NeighborQueue", length=131072, dim=512),
        temperature=0.1,
        target_temperature=0.04,
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-4, end=5, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", begin=5, convert_to_iter_based=True),
]
