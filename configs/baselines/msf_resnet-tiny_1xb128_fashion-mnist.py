# MSF, mean shift: a query moves to its key, of a weak view, and the key's neighbors;
# else as the SNCLR config.
_base_ = "../snclr_{{$RECIPE:resnet-tiny_1xb128_fashion-mnist}}.py"

work_dir = "work_dirs/msf_{{$RECIPE:resnet-tiny_1xb128_fashion-mnist}}"
weak_target = dict(  # cropped and flipped alone
    num_views=[1, 1], transforms=[_base_.view_pipeline, _base_.view_pipeline[:2]]
)
if _base_.data_preprocessor.type == "AugmentDataPreprocessor":
    data_preprocessor = weak_target
else:
    train_pipeline = _base_.train_pipeline
    train_pipeline[1].update(weak_target)
    train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    one_directional=True,
    head=dict(
        _delete_=True,
        type="MeanShiftHead",
        predictor={{_base_.model.head.predictor}},
        queue={{_base_.model.head.queue}},
        num_neighbors=4,  # and the key: 5, as its authors count
    ),
)
