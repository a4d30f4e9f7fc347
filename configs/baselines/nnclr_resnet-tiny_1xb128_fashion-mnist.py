# NNCLR: each key is replaced by its nearest neighbor in the queue; else as SNCLR.
_base_ = "../snclr_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}.py"

work_dir = "work_dirs/nnclr_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}"

model = dict(
    head=dict(
        _delete_=True,
        type="NearestNeighborHead",
        predictor={{_base_.model.head.predictor}},
        queue={{_base_.model.head.queue}},
        temperature={{_base_.model.head.temperature}},
    ),
)
