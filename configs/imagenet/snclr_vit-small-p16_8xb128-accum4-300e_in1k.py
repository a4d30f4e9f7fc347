# The same global batch of 4096 with less memory: 8 GPUs x 128 images x 4 accumulated.
# Negatives and batch norm see 1024 images at a time; the queue takes all 4096 after the
# optimizer's step.
_base_ = "snclr_vit-small-p16_8xb512-300e_in1k.py"

model = dict(base_momentum=0.0025)  # a quarter: updated four times per step
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(accumulative_counts=4)
auto_scale_lr = dict(base_batch_size=1024)  # counts GPUs x batch_size alone
