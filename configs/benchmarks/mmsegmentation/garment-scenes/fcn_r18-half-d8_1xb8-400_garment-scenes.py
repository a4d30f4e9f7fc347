# FCN on a ResNet-18 at half width and output stride 8, for the scenes of
# tools/data/prepare_garment_scenes.py: 400 steps of 8 scenes, minutes on a CPU core.
_base_ = "mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)

size = (128, 128)
model = dict(
    data_preprocessor=dict(size=size),
    pretrained=None,
    backbone=dict(
        type="ResNet",
        depth=18,
        stem_channels=32,
        base_channels=32,
        init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
    ),
    decode_head=dict(in_channels=256, channels=64, num_classes=11),
    auxiliary_head=dict(in_channels=128, channels=32, num_classes=11),
)

data_root = "data/garment-scenes/"
metainfo = dict(
    classes=(
        "background",
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type="BaseSegDataset",
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(img_path="train", seg_map_path="semantic/train"),
        img_suffix=".png",
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type="BaseSegDataset",
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(img_path="val", seg_map_path="semantic/val"),
        img_suffix=".png",
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-2, weight_decay=1e-2)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50),
]
train_cfg = dict(max_iters=400, val_interval=50)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=200, max_keep_ckpts=1)
)
auto_scale_lr = dict(base_batch_size=8)
