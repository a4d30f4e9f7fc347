# SNCLR, ResNet-50, ImageNet, 100 epochs, 8 GPUs x 256 images: the headline recipe,
# by its short name.
_base_ = "imagenet/snclr_r50_8xb256-100e_in1k.py"
