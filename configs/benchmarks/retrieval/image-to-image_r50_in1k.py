# Pictures like a given one, by the cosine of ResNet-50's pooled features: for
# MMPretrain's ImageRetrievalInferencer, see docs/evaluation.md.
_base_ = "mmpretrain::_base_/default_runtime.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)

model = dict(
    type="ImageToImageRetriever",
    image_encoder=[
        dict(
            type="ResNet",
            depth=50,
            init_cfg=dict(type="Pretrained", checkpoint="", prefix="backbone."),
        ),
        dict(type="GlobalAveragePooling"),
    ],
    prototype="",  # the inferencer sets it
)
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=256, edge="short"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
test_dataloader = dict(dataset=dict(type="CustomDataset", pipeline=test_pipeline))
