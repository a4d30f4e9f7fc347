# 800 epochs, global batch 4096: 8 GPUs x 256 images x 2 accumulated. Negatives and
# batch norm see 2048 images at a time; the queue takes all 4096 after the optimizer's
# step.
_base_ = "snclr_r50_8xb256-800e_in1k.py"

model = dict(base_momentum=0.002)  # half: updated twice per step
optim_wrapper = dict(
    accumulative_counts=2,
    optimizer=dict(lr=4.8),  # 0.3 x 4096 / 256
)
