# Multi-crop: 2 views of 224 px and 6 of 96 px, for which the ViT resizes its position
# embeddings.
_base_ = [
    "../_base_/models/snclr_vit-small-p16.py",
    "../_base_/datasets/imagenet_mcrop_vit.py",
    "../_base_/schedules/adamw_coslr-300e.py",
    "../_base_/default_runtime.py",
]

train_dataloader = dict(batch_size=512)
