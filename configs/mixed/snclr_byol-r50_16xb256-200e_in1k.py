# SNCLR in BYOL's set-up: projector, predictor, momentum, views, LARS and schedule.
_base_ = "./byol-soft-neighbors_r50_16xb256-200e_in1k.py"

model = dict(type="SNCLR", head=dict(loss_weight=2.0))  # the factor in BYOL's loss
