# MoCo v3 publishes no 200-epoch recipe: base LR and weight decay of 300 epochs.
_base_ = "lars_coslr-100e.py"

optim_wrapper = dict(optimizer=dict(lr=2.4))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=190, end=200)
train_cfg = dict(max_epochs=200)
