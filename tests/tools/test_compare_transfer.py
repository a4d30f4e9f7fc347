import json
from queue import SimpleQueue

import pytest
from compare_transfer import (
    ARMS,
    Run,
    as_table,
    build_config,
    first_passing,
    main,
    parse_args,
    train,
)
from tiny import REPOSITORY

CONFIG = (
    "configs/benchmarks/mmsegmentation/garment-scenes/"
    "fcn_r18-half-d8_1xb8-400_garment-scenes.py"
)


def test_arms():
    pytest.importorskip("mmseg", reason="MMSegmentation is not installed")
    args = parse_args([CONFIG, "a.pth", "--cfg-options", "train_cfg.val_interval=7"])
    random, pretrained, half = (build_config(arm, 3, args) for arm in ARMS)
    assert random.model.backbone.init_cfg is None
    assert pretrained.model.backbone.init_cfg.checkpoint.endswith("/a.pth")
    assert half.model == pretrained.model
    assert (random.train_cfg, random.param_scheduler) == (
        pretrained.train_cfg,
        pretrained.param_scheduler,
    )
    assert half.train_cfg.max_iters == 200 == half.param_scheduler[1].end
    assert half.param_scheduler[0] == random.param_scheduler[0]
    for cfg in (random, pretrained, half):
        assert cfg.randomness.seed == 3 and cfg.train_cfg.val_interval == 7


def test_first_passing_and_table():
    curves = {
        "random": {"mIoU": {0: [(5, 1.0), (10, 3.0)], 1: [(5, 1.0), (10, 5.0)]}},
        "pretrained": {"mIoU": {0: [(5, 2.0), (10, 7.0)], 1: [(5, 6.0), (10, 7.0)]}},
    }
    assert first_passing(curves["pretrained"]["mIoU"], 4.0) == 5
    assert first_passing(curves["pretrained"]["mIoU"], 4.1) == 10
    assert first_passing(curves["random"]["mIoU"], 4.1) is None
    table = as_table(curves)
    assert "| random | 10 | 4.00 ± 1.41 |" in table
    assert "| pretrained | 10 | 7.00 ± 0.00 |" in table
    assert "at step 5." in table


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--seeds", "1", "1"], "each seed once"),
        (["--jobs", "0"], "--jobs 0"),
    ],
)
def test_bad_arguments(argv, text, capsys):
    with pytest.raises(SystemExit):
        parse_args([CONFIG, "a.pth", *argv])
    assert text in capsys.readouterr().err


def test_nothing_detected_is_an_ap_of_zero(tmp_path):
    """MMDetection logs no AP then, and the seeds' curves must have the same steps."""
    run = Run("random", 0, tmp_path / "seed0")
    logs = run.folder / "20260101_000000/vis_data"
    logs.mkdir(parents=True)
    run.config.write_text("train_cfg = dict(max_iters=40, val_interval=10)")
    records = [{"coco/bbox_mAP": 0.1, "step": 20}, {"coco/bbox_mAP": 0.3, "step": 40}]
    (logs / "scalars.json").write_text("\n".join(map(json.dumps, records)))
    (run.folder / "trained").touch()
    slots = SimpleQueue()
    slots.put(0)
    curve = train(run, slots, jobs=1)["box AP"]
    assert curve == [(10, 0), (20, 10), (30, 0), (40, 30)]


def test_configs_that_count_in_epochs(tmp_path):
    config = REPOSITORY / "configs/snclr_resnet-tiny_1xb128_fashion-mnist.py"
    with pytest.raises(SystemExit, match="max_iters is needed, not epochs"):
        build_config("random", 0, parse_args([str(config), "a.pth"]))


def test_transfer_to_segmentation(
    garment_scenes, scenes_checkpoint, tmp_path, monkeypatch
):
    """The whole comparison, short; a second call repeats nothing."""
    monkeypatch.chdir(garment_scenes.parents[1])
    command = [CONFIG, str(scenes_checkpoint), "--seeds", "0", "--jobs", "1"]
    command += ["--work-dir", str(tmp_path / "out"), "--cfg-options"]
    command += ["train_cfg.max_iters=4", "train_cfg.val_interval=2"]
    command += ["train_dataloader.batch_size=2", "param_scheduler.1.end=4"]
    command += ["train_dataloader.num_workers=0", "val_dataloader.num_workers=0"]
    command += ["param_scheduler.0.end=1", "param_scheduler.1.begin=1"]
    report = main(command)
    steps = [
        [step for step, _ in report["curves"][arm]["mIoU"][0]]
        for arm in ("random", "pretrained", "pretrained, half the steps")
    ]
    assert steps == [[2, 4], [2, 4], [2]]
    out = tmp_path / "out"
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    log = out / "pretrained/seed0/train.log"
    assert str(scenes_checkpoint) in log.read_text()
    size = log.stat().st_size
    assert main(command) == report and log.stat().st_size == size
    assert json.loads((out / "results.json").read_text())["seeds"] == [0]
    with pytest.raises(SystemExit, match="other settings"):
        main([*command, "optim_wrapper.optimizer.lr=1"])
