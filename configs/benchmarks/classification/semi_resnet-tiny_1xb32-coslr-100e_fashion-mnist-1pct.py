# Fine-tuning the small recipe's backbone on 1 % of the labels.
_base_ = "semi_resnet-tiny_1xb128-coslr-50e_fashion-mnist-10pct.py"

train_dataloader = dict(batch_size=32, dataset=dict(split_file="train_1percent.txt"))
optim_wrapper = dict(optimizer=dict(lr=0.005))
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=32)
