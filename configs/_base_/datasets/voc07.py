# PASCAL VOC 2007 classification: trains on trainval, tests on test. For
# `tools/evaluate.py CONFIG CHECKPOINT --data THIS_FILE --protocols svm svm-low-shot`.
custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)

data_root = "data/VOC2007"
data_preprocessor = dict(to_rgb=True)
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeEdge", scale=256, edge="short", backend="pillow"),
    dict(type="CenterCrop", crop_size=224),
    # Without gt_label_difficult, difficult objects would count as absent.
    dict(
        type="PackInputs",
        meta_keys=("img_path", "ori_shape", "img_shape", "gt_label_difficult"),
    ),
]

val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="VOC", data_root=data_root, split="test", pipeline=test_pipeline),
)
val_cfg = dict(
    bank_dataloader=dict(
        batch_size=64,
        num_workers=8,
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="default_collate"),
        dataset=dict(
            type="VOC", data_root=data_root, split="trainval", pipeline=test_pipeline
        ),
    )
)
test_dataloader = val_dataloader
test_cfg = val_cfg
