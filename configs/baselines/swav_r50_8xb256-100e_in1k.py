# SwAV with a queue, MMPretrain's own, on two crops: prototypes in place of predictor
# and momentum encoder; else as the SNCLR config.
_base_ = "../imagenet/snclr_r50_8xb256-100e_in1k.py"

model = dict(
    _delete_=True,
    type="SwAV",
    backbone={{_base_.model.backbone}},
    neck=dict(  # SNCLR's projector without the last batch norm
        type="SwAVNeck", in_channels=2048, hid_channels=4096, out_channels=256
    ),
    head=dict(
        type="SwAVHead",
        loss=dict(
            type="SwAVLoss",
            feat_dim=256,
            epsilon=0.05,
            temperature=0.1,
            num_crops=[2],
            num_prototypes=3000,
        ),
    ),
)
# SwAV's small-batch setting (256 images, 200 epochs) has a queue of 3840 features, 15
# batches, from epoch 15 on, and fixed prototypes for the first epoch. Here: 15 batches,
# the same share of the epochs, and the first epoch.
custom_hooks = [
    dict(
        type="SwAVHook",
        priority="VERY_HIGH",
        batch_size=256,  # per GPU
        epoch_queue_starts=8,
        feat_dim=256,
        queue_length=15 * 8 * 256,
        frozen_layers_cfg=dict(prototypes=625),
    )
]
find_unused_parameters = True  # the frozen prototypes
optim_wrapper = dict(
    paramwise_cfg=dict(
        # SwAVNeck registers its batch norm under two names, of which this is the first.
        bypass_duplicate=True,
        custom_keys={"neck.norm": dict(decay_mult=0, lars_exclude=True)},
    )
)
