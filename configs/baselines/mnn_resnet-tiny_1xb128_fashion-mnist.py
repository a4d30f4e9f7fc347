# MNN: the key, and mixtures of it with its neighbors; else as the MSF config.
_base_ = "msf_resnet-tiny_1xb128_fashion-mnist.py"

work_dir = "work_dirs/mnn_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}"
model = dict(
    head=dict(
        _delete_=True,
        type="MeanShiftHead",
        predictor={{_base_.model.head.predictor}},
        queue={{_base_.model.head.queue}},
        num_neighbors=5,
        mix="uniform",
    ),
)
