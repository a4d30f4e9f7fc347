# MNN (Long et al., 2023), ResNet-50, ImageNet, 200 epochs; not run. Its paper has no
# ImageNet-1k: K, λ and queue.length are those for Tiny-ImageNet, all else is MSF's.
_base_ = "msf_r50_8xb32-200e_in1k.py"

model = dict(
    head=dict(num_neighbors=5, mix="uniform", queue=dict(length=16384)),
)
