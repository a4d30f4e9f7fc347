# 200 epochs, global batch 4096 by accumulation, bfloat16 in place of float16.
_base_ = "snclr_r50_8xb256-accum2-200e_in1k.py"

optim_wrapper = dict(dtype="bfloat16", loss_scale=1.0)  # float32's range: no scaling
