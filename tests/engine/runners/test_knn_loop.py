import pytest
import torch
import torch.distributed as dist
from helpers.ranks import run_on_ranks
from helpers.tiny import CONFIG, build_runner, tiny_config
from mmengine.config import Config

from snclr_mm.engine.runners import knn_loop
from snclr_mm.evaluation import extract_features, features, weighted_knn
from snclr_mm.models.ops.gather import ALL_GATHER

IMAGES = 101  # not a multiple of any number of ranks
KS = (20, 100)  # with 3 ranks a share of the bank has 68 rows, fewer than 100


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
            # For workers, of which there are none; it collects garbage, which is slow.
            "val_dataloader.dataset.serialize_data": False,
            "val_cfg.bank_dataloader.dataset.serialize_data": False,
            **{key.replace("__", "."): value for key, value in overrides.items()},
        }
    )
    return cfg


def test_in_log_and_scalars_while_training(digits_root, tmp_path):
    runner = build_runner(knn_config(digits_root, tmp_path))
    runner.train()
    metric = runner.message_hub.get_scalar("val/knn/top1").current()
    loop = runner.val_loop
    assert loop._bank is None  # freed
    bank, labels = extract_features(runner.model, loop.bank_dataloader)
    queries, truth = extract_features(runner.model, loop.dataloader)
    expected = (weighted_knn(queries, bank, labels) == truth).float().mean().item()
    assert metric == pytest.approx(100 * expected, abs=1e-4)
    assert metric > 15  # ten classes: above chance even after 8 steps
    (log,) = tmp_path.glob("*/*.log")
    assert f"knn/top1: {metric:.4f}" in log.read_text()
    (scalars,) = tmp_path.glob("*/vis_data/scalars.json")
    assert scalars.read_text().count('"knn/top1"') == 2  # each epoch


def test_top_5_of_fewer_classes(digits_root, tmp_path):
    """MMPretrain's Accuracy would end with an error after the first epochs."""
    cfg = knn_config(digits_root, tmp_path)
    cfg.val_evaluator = dict(type="Accuracy", topk=(1, 11))
    with pytest.raises(ValueError, match=r"val_evaluator.topk=\(1, 11\) of the 10 cla"):
        build_runner(cfg).val_loop  # noqa: B018


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


def rank_runner(rank, world_size, data_root, work_dir, **overrides):
    """A Runner of this rank, with the same weights on each."""
    launcher = "pytorch" if world_size > 1 else "none"
    cfg = knn_config(data_root, work_dir, launcher=launcher, **overrides)
    runner = build_runner(cfg)
    torch.manual_seed(0)
    getattr(runner.model, "module", runner.model).init_weights()
    return runner


def evaluate_rank(rank, data_root, work_dir, world_size):
    """Accuracy and this rank's scores for each k; images in this rank's bank."""
    runner = rank_runner(rank, world_size, data_root, work_dir)
    loop = runner.val_loop
    received = spy_on_received_tensors()
    process, scores, results = loop.evaluator.process, [], []

    def keep_scores(data_samples, data_batch):
        scores.extend(sample.pred_score for sample in data_samples)
        process(data_samples=data_samples, data_batch=data_batch)

    loop.evaluator.process = keep_scores
    for loop.k in KS:
        scores.clear()
        received.clear()
        accuracy = runner.val()["knn/top1"]
        results.append((accuracy, torch.stack(scores)))
        # Everybody's queries (8 channels), and the candidates of this rank's alone.
        most = 16 * world_size * max(8, loop.k)
        assert max(received, default=0) <= most
    return results, len(loop.bank_dataloader.sampler)


def spy_on_received_tensors():
    """Numbers that this process receives in each exchange, from now on."""
    received = []

    def spy(exchange):
        def call(output, *args, **kwargs):
            tensors = output if isinstance(output, list) else [output]
            received.append(sum(tensor.numel() for tensor in tensors))
            return exchange(output, *args, **kwargs)

        return call

    for name in ("all_gather", ALL_GATHER, "all_to_all_single"):
        setattr(dist, name, spy(getattr(dist, name)))
    return received


def test_does_not_depend_on_the_number_of_ranks(digits_root, tmp_path):
    ((expected, _),) = run_on_ranks(1, evaluate_rank, digits_root, tmp_path, 1)
    for world_size in (2, 3):
        results = run_on_ranks(
            world_size, evaluate_rank, digits_root, tmp_path, world_size
        )
        assert sum(share for _, share in results) == 203  # nobody counts twice
        for rank, (by_k, _) in enumerate(results):
            for (accuracy, scores), (one, all_scores) in zip(
                by_k, expected, strict=True
            ):
                assert accuracy == one
                images = (rank + world_size * torch.arange(len(scores))) % IMAGES
                torch.testing.assert_close(scores, all_scores[images])


def test_bad_settings(digits_root, tmp_path):
    with pytest.raises(ValueError, match=r"k=0 .*val_cfg\.k"):
        build_runner(knn_config(digits_root, tmp_path, val_cfg__k=0)).val()
    with pytest.raises(ValueError, match="k=204 .*at most the bank's 203 images"):
        build_runner(knn_config(digits_root, tmp_path, val_cfg__k=204)).val()


def refused_ranks(rank, data_root, work_dir):
    def runner(**overrides):
        return rank_runner(rank, 2, data_root, work_dir, **overrides)

    with pytest.raises(ValueError, match=r"val_dataloader\.sampler\.round_up=False"):
        runner(val_dataloader__sampler__round_up=False).val()
    with pytest.raises(ValueError, match=r"1 images .* spread over 2 ranks"):
        runner(val_cfg__k=1, val_cfg__bank_dataloader__dataset__indices=1).val()
    # The last rank has a feature that is not finite in each batch of this size.
    extract, good = features.batch_features, runner()
    for size, message in (
        (32, r"3 of 203 features of val_cfg\.bank_dataloader\.dataset are not finite"),
        (16, r"1 of 32 features of a batch of val_dataloader\.dataset are not finite"),
    ):

        def spoil(*args, size=size):
            found, data_samples = extract(*args)
            if rank == 1 and len(found) == size:
                found[0, 0] = torch.nan
            return found, data_samples

        features.batch_features = knn_loop.batch_features = spoil
        with pytest.raises(ValueError, match=message):
            good.val()


def test_ranks_that_would_wait_for_each_other(digits_root, tmp_path):
    run_on_ranks(2, refused_ranks, digits_root, tmp_path)


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


def accuracy_of_other_statistics(rank, data_root, work_dir):
    """Rank 0 has the network's statistics, the others have spoilt ones."""
    runner = rank_runner(rank, 2, data_root, work_dir)
    for name, buffer in runner.model.module.backbone.named_buffers():
        if rank and name.endswith("running_mean"):
            buffer += torch.randn(buffer.shape) * 10
    return runner.val()["knn/top1"]


def test_all_ranks_evaluate_the_network_of_the_checkpoint(digits_root, tmp_path):
    """Without SyncBN each rank has statistics of its own; rank 0's are saved."""
    ((expected, _),) = run_on_ranks(1, evaluate_rank, digits_root, tmp_path, 1)
    found = run_on_ranks(2, accuracy_of_other_statistics, digits_root, tmp_path)
    assert found == [expected[0][0]] * 2
