# Multi-crop: MoCo v3's two views and six of 96 px. Crop scale and blur of the small
# ones are SwAV's, the colors those of the large views.
_base_ = "imagenet_mocov3.py"


def _add_local_views(multi_view, num_views):
    crop, jitter, gray, blur, _, flip = multi_view.transforms[0]
    local_view = [
        dict(crop, scale=96, crop_ratio_range=(0.05, 0.14)),
        jitter,
        gray,
        dict(blur, prob=0.5),
        flip,
    ]
    multi_view.num_views.append(num_views)
    multi_view.transforms.append(local_view)


train_pipeline = _base_.train_pipeline
_add_local_views(train_pipeline[1], num_views=6)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
