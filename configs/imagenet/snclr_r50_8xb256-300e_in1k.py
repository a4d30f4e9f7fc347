# SNCLR, ResNet-50, ImageNet, 300 epochs, 8 GPUs x 256 images: MoCo v3's recipe.
_base_ = "snclr_r50_8xb256-100e_in1k.py"

optim_wrapper = dict(optimizer=dict(lr=2.4))  # 0.3 x batch / 256
train_cfg = dict(max_epochs=300)
