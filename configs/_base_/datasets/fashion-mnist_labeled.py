# Fashion-MNIST for classifiers: one labeled view.
_base_ = "fashion-mnist.py"

data_preprocessor = dict(type="ClsDataPreprocessor", num_classes=10)
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="RandomResizedCrop", scale=28, crop_ratio_range=(0.5, 1.0)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(_delete_=True, type="Accuracy", topk=1)
test_evaluator = val_evaluator
val_cfg = dict(_delete_=True)
test_cfg = dict(_delete_=True)
