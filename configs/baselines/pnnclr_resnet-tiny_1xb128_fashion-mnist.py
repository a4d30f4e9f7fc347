# After pNNCLR: NNCLR with pseudo neighbors, the key moved by a random share to one of
# its neighbors; else as the SNCLR config. Its smooth update is the momentum encoder.
_base_ = "../snclr_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}.py"

work_dir = "work_dirs/pnnclr_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}"
model = dict(
    head=dict(
        _delete_=True,
        type="NeighborKeys",
        head=dict(
            type="MoCoV3Head",
            loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
            predictor={{_base_.model.head.predictor}},
            temperature={{_base_.model.head.temperature}},
        ),
        queue={{_base_.model.head.queue}},
        num_neighbors=5,
        pick="sample",
        mix="uniform",
    ),
)
