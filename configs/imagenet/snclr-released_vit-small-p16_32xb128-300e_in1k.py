# What the authors' start.sh trains (github.com/ChongjianGE/SNCLR): 4 nodes x 8 GPUs,
# each GPU with a queue of its own.
_base_ = "snclr_vit-small-p16_8xb512-300e_in1k.py"

model = dict(head=dict(preset="released"))
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    # start.sh has 1.5e-5 x batch / 256; another of their scripts, and MoCo v3, 1.5e-4.
    optimizer=dict(lr=2.4e-4),
)
