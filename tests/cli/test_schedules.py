import pytest
from helpers.tiny import build_runner, tiny_config

from snclr_mm.cli.schedules import fit_schedule

#: As in the recipes.
WARM_UP = dict(type="LinearLR", start_factor=1e-4, end=2, convert_to_iter_based=True)
COSINE = dict(type="CosineAnnealingLR", begin=2, convert_to_iter_based=True)


def last_lr(digits_root, tmp_path, epochs, cosine, **options):
    """Notes, and the learning rate of the last step as a share of the config's."""
    cfg = tiny_config(
        digits_root,
        tmp_path,
        train_cfg__max_epochs=epochs,
        param_scheduler=[WARM_UP, cosine],
        **options,
    )
    notes = fit_schedule(cfg)
    runner = build_runner(cfg)
    runner.train()
    lr = runner.message_hub.get_scalar("train/lr").current()
    return notes, lr / cfg.optim_wrapper.optimizer.lr


@pytest.mark.parametrize("epochs", [3, 5])
def test_a_recipe_ends_with_the_training(digits_root, tmp_path, epochs):
    notes, lr = last_lr(digits_root, tmp_path, epochs, COSINE)
    assert notes == []
    assert lr < 0.2


def test_a_training_shorter_than_its_warm_up(digits_root, tmp_path):
    notes, lr = last_lr(digits_root, tmp_path, 1, COSINE)
    assert notes == [
        "LinearLR does not end: param_scheduler.0.end=2, and training ends at "
        "train_cfg.max_epochs=1; set both alike.",
        "CosineAnnealingLR never begins: param_scheduler.1.begin=2, and training ends "
        "at train_cfg.max_epochs=1.",
    ]
    assert 0.3 < lr < 0.6


def test_a_stock_schedule_of_another_length(digits_root, tmp_path):
    cosine = dict(COSINE, T_max=98, end=100, by_epoch=True)
    notes, lr = last_lr(digits_root, tmp_path, 3, cosine)
    assert len(notes) == 1
    assert "param_scheduler.1.end=100, and training ends at" in notes[0]
    assert notes[0].endswith("set both alike, and param_scheduler.1.T_max=1.")
    assert lr > 0.9


def test_steps_and_epochs(digits_root, tmp_path):
    """A warm-up in steps under a loop of epochs, as the small recipes have it."""
    cfg = tiny_config(digits_root, tmp_path)
    assert fit_schedule(cfg) == []
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=20)
    with pytest.raises(ValueError, match=r"param_scheduler.1 \(Cosine.* counts"):
        fit_schedule(cfg)
    cfg.param_scheduler[1] = dict(
        type="MultiStepLR", by_epoch=False, milestones=[9, 20]
    )
    warm_up, steps, checkpoints = fit_schedule(cfg)
    assert "param_scheduler.0.end=50" in warm_up and "train_cfg.max_iters=20" in warm_up
    assert steps.startswith("param_scheduler.1.milestones [20] are never reached")
    assert "default_hooks.checkpoint.by_epoch" in checkpoints
    cfg.train_cfg = cfg.param_scheduler = None
    assert fit_schedule(cfg) == []
