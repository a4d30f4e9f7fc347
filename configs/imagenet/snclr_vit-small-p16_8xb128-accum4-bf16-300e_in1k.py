# Accumulated, and bfloat16 in place of float16.
_base_ = "snclr_vit-small-p16_8xb128-accum4-300e_in1k.py"

optim_wrapper = dict(dtype="bfloat16", loss_scale=1.0)  # float32's range: no scaling
