# Fine-tuning on 1 % of ImageNet's labels, with SwAV's recipe: learning rate 0.02 for
# the backbone and 5 for the classifier.
_base_ = "semi_r50_8xb32-steplr-20e_in1k-10pct.py"

train_dataloader = dict(dataset=dict(ann_file="meta/train_1percent.txt"))
optim_wrapper = dict(
    optimizer=dict(lr=0.02),
    paramwise_cfg=dict(custom_keys={"head.": dict(lr_mult=250)}),
)
