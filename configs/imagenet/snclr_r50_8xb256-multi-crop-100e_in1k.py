# 100 epochs, multi-crop: 2 views of 224 px and 6 of 96 px.
_base_ = ["snclr_r50_8xb256-100e_in1k.py", "../_base_/variants/multi_crop.py"]

train_pipeline = _base_.train_pipeline
train_pipeline[1].num_views.append(_base_.num_local_views)
train_pipeline[1].transforms.append(_base_.local_view)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
