# NNBYOL: BYOL whose keys are replaced by their nearest neighbors, which may collapse;
# else as the SNCLR config.
_base_ = "../snclr_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}.py"

work_dir = "work_dirs/nnbyol_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}"
model = dict(
    head=dict(
        _delete_=True,
        type="NeighborKeys",
        head=dict(
            type="LatentPredictHead",
            loss=dict(type="CosineSimilarityLoss", shift_factor=2.0, scale_factor=2.0),
            predictor={{_base_.model.head.predictor}},
        ),
        queue={{_base_.model.head.queue}},
    ),
)
