# MoCo v3 for ResNet-50, 800 and more epochs: base LR 0.3 x batch / 256.
_base_ = "lars_coslr-100e.py"

optim_wrapper = dict(optimizer=dict(lr=2.4, weight_decay=1.5e-6))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=790, end=800)
train_cfg = dict(max_epochs=800)
