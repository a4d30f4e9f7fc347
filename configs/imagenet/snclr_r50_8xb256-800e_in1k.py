# SNCLR, ResNet-50, ImageNet, 800 epochs, 8 GPUs x 256 images: MMPretrain's recipe of
# MoCo v3 for 800 epochs, MoCo v3's own for 1000.
_base_ = "snclr_r50_8xb256-100e_in1k.py"

model = dict(base_momentum=0.004)  # 0.996 for long training
optim_wrapper = dict(  # 0.3 x batch / 256
    optimizer=dict(lr=2.4, weight_decay=1.5e-6)
)
train_cfg = dict(max_epochs=800)
