# What the authors' start.sh trains (github.com/ChongjianGE/SNCLR): 4 nodes x 8 GPUs,
# each GPU with a queue of its own, which starts random. Their loss takes the logarithm
# of each neighbor by itself and weighs neighbors by plain cosines.
_base_ = "snclr_vit-small-p16_8xb512-300e_in1k.py"

model = dict(
    head=dict(
        queue=dict(init="random", sync=False),
        attention=dict(projection="identity"),
        objective="sum_of_logs",
        temperature=0.2,
        loss_weight=0.4,
    )
)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    # start.sh has 1.5e-5 x batch / 256; another of their scripts, and MoCo v3, 1.5e-4.
    optimizer=dict(lr=2.4e-4),
)
