# SUN397, some of whose files only Pillow reads.
_base_ = "../transfer.py"

num_classes = 397
mean_per_class = False  # what the field reports
data_root = "data/SUN397"
_load = dict(type="LoadImage", imdecode_backend="pillow")
train_dataloader = dict(
    dataset=dict(
        type="SUN397",
        data_root=data_root,
        split="train",
        pipeline=[_load, *_base_.train_pipeline[1:]],
    )
)
val_dataloader = dict(
    dataset=dict(
        type="SUN397",
        data_root=data_root,
        split="test",
        pipeline=[_load, *_base_.test_pipeline[1:]],
    )
)
test_dataloader = val_dataloader
