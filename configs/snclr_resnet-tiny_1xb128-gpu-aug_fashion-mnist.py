# SNCLR on Fashion-MNIST, whole batches cropped and augmented on the training device;
# faster also where that is a CPU.
_base_ = "snclr_resnet-tiny_1xb128_fashion-mnist.py"

data_preprocessor = dict(
    type="AugmentDataPreprocessor",
    transforms=[_base_.view_pipeline],
    num_views=[2],
    non_blocking=True,
)
train_dataloader = dict(
    dataset=dict(pipeline=[dict(type="LoadImage"), dict(type="PackInputs")])
)
