# SwAV with a queue, MMPretrain's own, on two crops: no momentum encoder and no
# predictor, prototypes instead, and its own learning rate; else as the SNCLR config.
_base_ = "../snclr_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}.py"

work_dir = "work_dirs/swav_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}"

batch_size = {{_base_.train_dataloader.batch_size}}
out_channels = {{_base_.model.neck.out_channels}}
model = dict(
    _delete_=True,
    type="SwAV",
    backbone={{_base_.model.backbone}},
    neck=dict(
        type="SwAVNeck",
        in_channels={{_base_.model.neck.in_channels}},
        hid_channels={{_base_.model.neck.hid_channels}},
        out_channels=out_channels,
        norm_cfg={{_base_.norm_cfg}},
    ),
    head=dict(
        type="SwAVHead",
        loss=dict(
            type="SwAVLoss",
            feat_dim=out_channels,
            epsilon=0.05,
            temperature=0.1,
            num_crops=[2],
            num_prototypes=100,
        ),
    ),
)
# Of 1e-2, 3e-3 and 1e-3 the best on held-out training images.
optim_wrapper = dict(optimizer=dict(lr=3e-3))
custom_hooks = [
    dict(
        type="SwAVHook",
        priority="VERY_HIGH",
        batch_size=batch_size,
        epoch_queue_starts=2,
        feat_dim=out_channels,
        queue_length=1024,
        frozen_layers_cfg=dict(prototypes=78),  # the first epoch of 10,000 images
    )
]
