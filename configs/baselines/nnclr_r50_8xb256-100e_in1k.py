# NNCLR: each key is replaced by its nearest neighbor in the queue; else as the SNCLR
# config.
_base_ = "../imagenet/snclr_r50_8xb256-100e_in1k.py"

temperature = 0.1  # NNCLR's
model = dict(
    head=dict(
        _delete_=True,
        type="NearestNeighborHead",
        predictor={{_base_.model.head.predictor}},
        queue={{_base_.model.head.queue}},
        temperature=temperature,
        # MoCo v3's factor keeps the gradients as large as at its own temperature.
        loss_weight=2 * temperature,
    ),
)
