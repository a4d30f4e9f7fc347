# SNCLR, ResNet-50, ImageNet, 200 epochs, 8 GPUs x 256 images. MoCo v3 publishes no
# recipe of 200 epochs: LR and weight decay are those of 300.
_base_ = "snclr_r50_8xb256-100e_in1k.py"

optim_wrapper = dict(optimizer=dict(lr=2.4))  # 0.3 x batch / 256
train_cfg = dict(max_epochs=200)
