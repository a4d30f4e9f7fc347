# Faster R-CNN on a ResNet-18 at half width, for the tiles of
# tools/data/prepare_tree_crowns.py: the Mask R-CNN of the garment scenes without masks,
# 400 steps of 4 tiles, minutes on a CPU core.
_base_ = "../garment-scenes/mask-rcnn_r18-half_fpn_1xb8-400_garment-scenes.py"

model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(
        bbox_head=dict(num_classes=1), mask_roi_extractor=None, mask_head=None
    ),
    train_cfg=dict(rcnn=dict(assigner=dict(match_low_quality=False))),
)

data_root = "data/tree-crowns/"
metainfo = dict(_delete_=True, classes=("tree",))
train_pipeline = _base_.train_pipeline
train_pipeline[1].with_mask = False
train_pipeline[2].direction = ["horizontal", "vertical"]
test_pipeline = _base_.test_pipeline
test_pipeline[2].with_mask = False
data = dict(data_root=data_root, metainfo=metainfo)
train_dataloader = dict(batch_size=4, dataset=dict(data, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/val.json", metric="bbox")
test_evaluator = val_evaluator
del data

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=4)
