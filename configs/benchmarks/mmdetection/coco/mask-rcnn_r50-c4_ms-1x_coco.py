# Mask R-CNN, R50-C4, 1x, as MoCo's transfer: SyncBN, nothing frozen, and a norm after
# res5, which is pretrained too.
_base_ = "mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py"

custom_imports = dict(imports=["snclr_mm"], allow_failed_imports=False)

norm_cfg = dict(type="SyncBN", requires_grad=True)
pretrained = dict(type="Pretrained", checkpoint="", prefix="backbone.")
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        style="pytorch",
        init_cfg=pretrained,
    ),
    roi_head=dict(
        shared_head=dict(
            type="ResLayerExtraNorm",  # MMPretrain's
            norm_cfg=norm_cfg,
            norm_eval=False,
            style="pytorch",
            init_cfg=pretrained,
        )
    ),
)

train_pipeline = [
    dict(type="LoadImageFromFile", backend_args={{_base_.backend_args}}),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, side) for side in range(640, 801, 32)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
