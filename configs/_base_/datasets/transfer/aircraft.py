# FGVC-Aircraft.
_base_ = "../transfer.py"

num_classes = 100
mean_per_class = True  # what the field reports
data_root = "data/fgvc-aircraft-2013b"
train_dataloader = dict(
    dataset=dict(type="FGVCAircraft", data_root=data_root, split="trainval")
)
val_dataloader = dict(
    dataset=dict(type="FGVCAircraft", data_root=data_root, split="test")
)
test_dataloader = val_dataloader
