# MoCo v3 for ResNet-50, 300 epochs: base LR 0.3 x batch / 256.
_base_ = "lars_coslr-100e.py"

optim_wrapper = dict(optimizer=dict(lr=2.4))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=290, end=300)
train_cfg = dict(max_epochs=300)
