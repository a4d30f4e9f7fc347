# Linear probe of ResNet-50 at seven learning rates, on the data set of the table below
# that the variable DATASET names:
#   DATASET=flowers102 python tools/train.py .../linear_r50_1xb256-coslr-100e.py ...
_base_ = "../../../_base_/default_runtime.py"


def choose(name):
    table = {
        # type, folder in data/, training split, classes, and whether the field reports
        # the mean of the classes' accuracies
        "aircraft": ("FGVCAircraft", "fgvc-aircraft-2013b", "trainval", 100, True),
        "caltech101": ("Caltech101", "caltech-101", "train", 102, True),
        "cars": ("StanfordCars", "Stanford_Cars", "train", 196, False),
        "cifar10": ("CIFAR10", "cifar10", "train", 10, False),
        "cifar100": ("CIFAR100", "cifar100", "train", 100, False),
        "dtd": ("DTD", "dtd", "trainval", 47, False),
        "flowers102": ("Flowers102", "Flowers102", "trainval", 102, True),
        "food101": ("Food101", "food-101", "train", 101, False),
        "pets": ("OxfordIIITPet", "Oxford-IIIT_Pets", "trainval", 37, True),
        "sun397": ("SUN397", "SUN397", "train", 397, False),
    }
    if name not in table:
        raise ValueError(f"DATASET={name} is unknown: use one of {', '.join(table)}.")
    return table[name]


dataset_type, data_root, train_split, num_classes, mean_per_class = choose(
    "{{$DATASET:cifar10}}"
)
data_root = f"data/{data_root}"
work_dir = "work_dirs/linear_r50_1xb256-coslr-100e_{{$DATASET:cifar10}}"

# ResNet-50 as pretraining left it, batch norm's statistics included, and linear
# classifiers on the pooled features.
model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="ResNet",
        depth=50,
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="MultiLinearHead",
        num_classes=num_classes,
        in_channels=2048,
        lr_factors=(0.1, 0.3, 1, 3, 10, 30, 100),
    ),
)

# Images of 224 pixels, normalized as in pretraining.
data_preprocessor = dict(
    type="ClsDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=not dataset_type.startswith("CIFAR"),  # which is RGB already
)
load = dict(type="LoadImage")
if dataset_type == "SUN397":  # some of its files only Pillow reads
    load["imdecode_backend"] = "pillow"
resize = dict(backend="pillow", interpolation="bicubic")
train_pipeline = [
    load,
    dict(type="RandomResizedCrop", scale=224, **resize),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackInputs"),
]
test_pipeline = [
    load,
    dict(type="ResizeEdge", scale=224, edge="short", **resize),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
del load, resize
train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split=train_split,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type=dataset_type, data_root=data_root, split="test", pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MultiLinearAccuracy", mean_per_class=mean_per_class)
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()

# SGD without weight decay, cosine.
optim_wrapper = dict(
    constructor="MultiLinearOptimWrapperConstructor",
    # 0.1 x batch / 256, and times each of model.head.lr_factors.
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [dict(type="CosineAnnealingLR", convert_to_iter_based=True)]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=10)
custom_hooks = []  # no queue
auto_scale_lr = dict(base_batch_size=256)
