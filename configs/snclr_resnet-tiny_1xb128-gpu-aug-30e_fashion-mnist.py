# SNCLR on Fashion-MNIST as tools/demo.sh runs it: 10,000 images for 30 epochs. The
# views have 20 of 28 px, which makes a step 1.7 times as fast. τ, K and the start
# without neighbors are the best of a few that were tried on held-out training images,
# see docs/benchmarks.
_base_ = "snclr_resnet-tiny_1xb128-gpu-aug_fashion-mnist.py"

model = dict(head=dict(num_neighbors=10, temperature=0.2))
custom_hooks = [dict(type="NeighborQueueHook", start_epoch=6)]
view_pipeline = _base_.view_pipeline
view_pipeline[0].scale = 20
data_preprocessor = dict(transforms=[view_pipeline])
train_cfg = dict(max_epochs=30)
# To load a batch is less work than to send it between processes.
train_dataloader = dict(num_workers=0, persistent_workers=False)
