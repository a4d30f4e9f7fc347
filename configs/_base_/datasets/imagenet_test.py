# Weighted kNN on ImageNet's validation images, with the training images as bank; k and
# temperature are DINO's. It also says how an image is prepared, for whatever extracts
# features.
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="ResizeEdge", scale=256, edge="short", backend="pillow"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
test_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="ImageNet", data_root="data/imagenet/", split="val", pipeline=test_pipeline
    ),
)
test_evaluator = dict(type="Accuracy", topk=(1, 5), prefix="knn")
test_cfg = dict(
    type="KNNTestLoop",
    k=20,
    temperature=0.07,
    bank_dataloader=dict(
        batch_size=256,
        num_workers=8,
        persistent_workers=False,  # idle between evaluations otherwise
        sampler=dict(type="DefaultSampler", shuffle=False, round_up=False),
        collate_fn=dict(type="default_collate"),
        dataset=dict(
            type="ImageNet",
            data_root="data/imagenet/",
            split="train",
            pipeline=test_pipeline,
        ),
    ),
)
