# The same on the tiles of tools/prepare_tree_crowns.py, which are few: 1,500 steps.
_base_ = "snclr_r18-half_1xb128-25e_garment-scenes.py"

train_dataloader = dict(
    dataset=dict(data_root="data/tree-crowns/train"),
    sampler=dict(type="InfiniteSampler"),
)
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=1500)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=1500),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)
