# SNCLR, ResNet-18 at half width, on the tiles of tools/data/prepare_tree_crowns.py.
# They are few, so it counts steps. For two CPU cores.
_base_ = "snclr_r18-half_1xb128-25e_garment-scenes.py"

views = _base_.views
# Colors as in small_images.py.
views[0].jitter.transforms[0].hue = views[1].jitter.transforms[0].hue = 0.1
views[0].gray.prob = views[1].gray.prob = 0.2
train_pipeline = _base_.train_pipeline
train_pipeline[1].transforms = [list(view.values()) for view in views]
data_root = "data/tree-crowns/train"
train_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
    sampler=dict(type="InfiniteSampler"),
)
test_dataloader = dict(dataset=dict(data_root=data_root))
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=1500)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)
