# bfloat16 in place of float16; also runs on CPUs that have instructions for it.
#     _base_ = [RECIPE, "_base_/variants/bf16.py"]
#     optim_wrapper = _base_.bf16
bf16 = dict(
    type="AmpOptimWrapper",
    dtype="bfloat16",
    loss_scale=1.0,  # bfloat16 has float32's range: no scaling
)
