# ReSSL: a query is to resemble the queue as its key does; else as the MSF config.
_base_ = "msf_resnet-tiny_1xb128_fashion-mnist.py"

work_dir = "work_dirs/ressl_resnet-tiny_1xb128_{{$DATASET:fashion-mnist}}"
model = dict(
    head=dict(
        _delete_=True,
        type="RelationalHead",
        queue={{_base_.model.head.queue}},
        temperature=0.1,
        target_temperature=0.04,
    ),
)
