# SNCLR, ResNet-18 at half width, on the tiles of tools/prepare_tree_crowns.py; they are
# few, so it counts steps. For two CPU cores.
_base_ = "snclr_r18-half_1xb128-25e_garment-scenes.py"

train_pipeline = _base_.train_pipeline
for _view in train_pipeline[1].transforms:  # colors as in small_images.py
    _view[1].transforms[0].hue = 0.1
    _view[2].prob = 0.2
del _view
train_dataloader = dict(
    dataset=dict(data_root="data/tree-crowns/train", pipeline=train_pipeline),
    sampler=dict(type="InfiniteSampler"),
)
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=1500)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=1500),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)
