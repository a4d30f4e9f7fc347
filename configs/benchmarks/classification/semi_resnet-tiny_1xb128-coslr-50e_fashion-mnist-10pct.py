# Fine-tuning the small recipe's backbone on 10 % of the labels.
_base_ = "finetune_resnet-tiny_1xb128-coslr-20e_fashion-mnist.py"

train_dataloader = dict(
    # tools/make_semi_supervised_splits.py writes the file.
    dataset=dict(
        type="LabeledSubset", base="FashionMNIST", split_file="train_10percent.txt"
    )
)
train_cfg = dict(max_epochs=50, val_interval=10)
