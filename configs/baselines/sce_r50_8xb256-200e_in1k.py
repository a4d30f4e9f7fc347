# SCE (Denize et al., WACV 2023), ResNet-50, ImageNet, 200 epochs; not run. As the SNCLR
# config, which has the same LARS, schedule, momentum, predictor and both directions of
# MoCo v3's views as the authors' code; the batch there is 4096.
_base_ = "../imagenet/snclr_r50_8xb256-200e_in1k.py"

model = dict(
    neck=dict(num_layers=3),
    head=dict(
        _delete_=True,
        type="RelationalHead",
        predictor={{_base_.model.head.predictor}},
        queue={{_base_.model.head.queue}},
        temperature=0.1,
        target_temperature=0.07,
        own_weight=0.5,
    ),
)
