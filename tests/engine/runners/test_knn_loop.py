import os

import pytest
import torch
from helpers.ranks import run_on_ranks
from helpers.tiny import CONFIG, build_runner, tiny_config
from mmengine.config import Config

from snclr_mm.evaluation import extract_features, weighted_knn

IMAGES = 101  # not a multiple of any number of ranks


def knn_config(data_root, work_dir, **overrides):
    """The tiny training config with the repository's kNN evaluation."""
    cfg = tiny_config(data_root, work_dir)
    stock = Config.fromfile(CONFIG)
    for key in ("val_cfg", "val_dataloader", "val_evaluator"):
        cfg[key] = stock[key]
    cfg.merge_from_dict(
        {
            "val_dataloader.dataset.data_root": str(data_root),
            "val_dataloader.dataset.indices": IMAGES,
            "val_dataloader.batch_size": 16,
            "val_cfg.bank_dataloader.dataset.data_root": str(data_root),
            "val_cfg.bank_dataloader.dataset.indices": 203,
            "val_cfg.bank_dataloader.batch_size": 32,
            **{key.replace("__", "."): value for key, value in overrides.items()},
        }
    )
    return cfg


def test_in_log_and_scalars_while_training(digits_root, tmp_path):
    runner = build_runner(knn_config(digits_root, tmp_path))
    runner.train()
    metric = runner.message_hub.get_scalar("val/knn/top1").current()
    loop = runner.val_loop
    bank, labels = extract_features(runner.model, loop.bank_dataloader)
    queries, truth = extract_features(runner.model, loop.dataloader)
    expected = (weighted_knn(queries, bank, labels) == truth).float().mean().item()
    assert metric == pytest.approx(100 * expected, abs=1e-4)
    assert metric > 15  # ten classes: above chance even after 8 steps
    (log,) = tmp_path.glob("*/*.log")
    assert f"knn/top1: {metric:.4f}" in log.read_text()
    (scalars,) = tmp_path.glob("*/vis_data/scalars.json")
    assert scalars.read_text().count('"knn/top1"') == 2  # each epoch


def test_queries_and_bank_are_different_images(digits_root, tmp_path):
    cfg = knn_config(digits_root, tmp_path)
    cfg.val_dataloader.dataset.indices = None
    cfg.val_cfg.bank_dataloader.dataset.indices = None
    loop = build_runner(cfg).val_loop
    queries, bank = (
        {dataset.get_data_info(i)["img"].tobytes() for i in range(len(dataset))}
        for dataset in (loop.dataloader.dataset, loop.bank_dataloader.dataset)
    )
    assert (len(queries), len(bank)) == (360, 1437)
    assert not queries & bank


def evaluate_rank(rank, data_root, work_dir, world_size, k):
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.manual_seed(0)
    cfg = knn_config(
        data_root,
        work_dir,
        val_cfg__k=k,
        launcher="pytorch" if world_size > 1 else "none",
    )
    runner = build_runner(cfg)
    torch.manual_seed(0)
    model = getattr(runner.model, "module", runner.model)
    model.init_weights()
    return runner.val()["knn/top1"], len(runner.val_loop.bank_dataloader.sampler)


@pytest.mark.parametrize("k", [20, 100])
def test_does_not_depend_on_the_number_of_ranks(digits_root, tmp_path, k):
    # With 3 ranks a share of the bank has 68 rows, fewer than 100.
    ((expected, _),) = run_on_ranks(1, evaluate_rank, digits_root, tmp_path, 1, k)
    for world_size in (2, 3):
        results = run_on_ranks(
            world_size, evaluate_rank, digits_root, tmp_path, world_size, k
        )
        assert {accuracy for accuracy, _ in results} == {expected}
        assert sum(share for _, share in results) == 203  # nobody counts twice


def test_bad_settings(digits_root, tmp_path):
    with pytest.raises(ValueError, match=r"k=0 .*val_cfg\.k"):
        build_runner(knn_config(digits_root, tmp_path, val_cfg__k=0)).val()
    with pytest.raises(ValueError, match="k=204 .*at most the bank's 203 images"):
        build_runner(knn_config(digits_root, tmp_path, val_cfg__k=204)).val()


def test_the_bank_is_freed(digits_root, tmp_path):
    runner = build_runner(knn_config(digits_root, tmp_path))
    runner.val()
    assert runner.val_loop._bank is None


def unequal_batches_rank(rank, data_root, work_dir):
    os.environ.update(LOCAL_RANK=str(rank), RANK=str(rank), WORLD_SIZE="2")
    cfg = knn_config(data_root, work_dir, launcher="pytorch")
    cfg.val_dataloader.sampler.round_up = False
    with pytest.raises(ValueError, match=r"val_dataloader\.sampler\.round_up=False"):
        build_runner(cfg).val()
    cfg = knn_config(data_root, work_dir, launcher="pytorch", val_cfg__k=1)
    cfg.val_cfg.bank_dataloader.dataset.indices = 1
    with pytest.raises(ValueError, match=r"1 images .* spread over 2 ranks"):
        build_runner(cfg).val()


def test_ranks_that_would_wait_for_each_other(digits_root, tmp_path):
    run_on_ranks(2, unequal_batches_rank, digits_root, tmp_path)


def test_unlabeled_validation_data(digits_root, image_folder, tmp_path):
    cfg = knn_config(digits_root, tmp_path)
    cfg.val_dataloader.dataset.update(
        type="ImageFolder", data_root=str(image_folder), indices=None
    )
    del cfg.val_dataloader.dataset["split"], cfg.val_dataloader.dataset["test_mode"]
    with pytest.raises(
        ValueError, match="val_dataloader.*without labels.*--no-validate"
    ):
        build_runner(cfg).val()
