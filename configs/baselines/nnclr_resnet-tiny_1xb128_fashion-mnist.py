# NNCLR: each key is replaced by its nearest neighbor in the queue; else as SNCLR.
_base_ = "../snclr_{{$RECIPE:resnet-tiny_1xb128_fashion-mnist}}.py"

work_dir = "work_dirs/nnclr_{{$RECIPE:resnet-tiny_1xb128_fashion-mnist}}"

model = dict(
    head=dict(
        _delete_=True,
        type="NearestNeighborHead",
        predictor={{_base_.model.head.predictor}},
        queue={{_base_.model.head.queue}},
        temperature={{_base_.model.head.temperature}},
    ),
)
