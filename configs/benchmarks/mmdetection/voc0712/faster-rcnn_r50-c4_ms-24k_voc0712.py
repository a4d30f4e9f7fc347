# Faster R-CNN, R50-C4, on VOC 2007 + 2012, 24,000 steps of 16 images, as MoCo's
# transfer: SyncBN, nothing frozen, and a norm after res5, which is pretrained too.
_base_ = "mmdet::pascal_voc/faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py"

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

train_cfg = dict(max_iters=24000, val_interval=24000)
default_hooks = dict(logger=dict(log_metric_by_epoch=False))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, end=100),
    dict(
        type="MultiStepLR",
        begin=0,
        end=24000,
        by_epoch=False,
        milestones=[18000, 22000],
        gamma=0.1,
    ),
]
# AP, AP50 and AP75 in one, as those papers report on VOC 2007.
val_evaluator = dict(iou_thrs=[0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
test_evaluator = val_evaluator
