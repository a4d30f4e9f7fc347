# Stanford Cars.
_base_ = "../transfer.py"

num_classes = 196
mean_per_class = False  # what the field reports
data_root = "data/Stanford_Cars"
train_dataloader = dict(
    dataset=dict(type="StanfordCars", data_root=data_root, split="train")
)
val_dataloader = dict(
    dataset=dict(type="StanfordCars", data_root=data_root, split="test")
)
test_dataloader = val_dataloader
