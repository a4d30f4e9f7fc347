# Oxford-IIIT Pets.
_base_ = "../transfer.py"

num_classes = 37
mean_per_class = True  # what the field reports
data_root = "data/Oxford-IIIT_Pets"
train_dataloader = dict(
    dataset=dict(type="OxfordIIITPet", data_root=data_root, split="trainval")
)
val_dataloader = dict(
    dataset=dict(type="OxfordIIITPet", data_root=data_root, split="test")
)
test_dataloader = val_dataloader
