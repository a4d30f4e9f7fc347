# Fine-tuning the small recipe's backbone on 1 % or 10 % of the labels, as the variable
# PERCENT says. On 1 %, 600 images, it takes more epochs, smaller batches and a smaller
# learning rate than the name says.
_base_ = "finetune_resnet-tiny_1xb128-coslr-20e_fashion-mnist.py"


def choose(percent):
    table = {
        "1": dict(batch_size=32, lr=0.005, epochs=100),
        "10": dict(batch_size=128, lr=0.02, epochs=50),
    }
    if percent not in table:
        raise ValueError(
            f"PERCENT={percent} is unknown: use one of {', '.join(table)}."
        )
    return table[percent]


chosen = choose("{{$PERCENT:10}}")
work_dir = "work_dirs/semi_resnet-tiny_fashion-mnist-{{$PERCENT:10}}pct"

train_dataloader = dict(
    batch_size=chosen["batch_size"],
    # tools/data/make_semi_supervised_splits.py writes the file.
    dataset=dict(
        type="LabeledSubset",
        base="FashionMNIST",
        split_file="train_{{$PERCENT:10}}percent.txt",
    ),
)
optim_wrapper = dict(optimizer=dict(lr=chosen["lr"]))
train_cfg = dict(max_epochs=chosen["epochs"], val_interval=10)
auto_scale_lr = dict(base_batch_size=chosen["batch_size"])
del chosen
