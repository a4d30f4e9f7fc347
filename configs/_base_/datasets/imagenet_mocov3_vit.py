# MoCo v3's views for ViT: as for ResNet-50, with crop scale 0.08-1.
_base_ = "imagenet_mocov3.py"

train_pipeline = _base_.train_pipeline
train_pipeline[1].transforms[0][0].crop_ratio_range = (0.08, 1.0)
train_pipeline[1].transforms[1][0].crop_ratio_range = (0.08, 1.0)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
