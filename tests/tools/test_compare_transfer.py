"""tools/compare.py --pretrained: transfer to detection and segmentation."""

import json

import pytest
from helpers.command import call, load_tool, tools_in_process
from helpers.tiny import REPOSITORY

compare = load_tool("compare.py")
CONFIG = (
    "configs/benchmarks/mmsegmentation/garment-scenes/"
    "fcn_r18-half-d8_1xb8-400_garment-scenes.py"
)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"weights")
    return str(path)


def parse(config, checkpoint, *options):
    return compare.parse_args([f"--pretrained={checkpoint}", str(config), *options])


def configs(args, seed=0):
    """Of the three arms."""
    arms = compare.list_arms(args)
    return [compare.build_config(arm, seed, args) for arm in arms]


def test_arms(checkpoint):
    pytest.importorskip("mmseg", reason="MMSegmentation is not installed")
    args = parse(CONFIG, checkpoint, "--cfg-options", "train_cfg.val_interval=7")
    random, pretrained, half = configs(args, seed=3)
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


def test_arms_of_a_c4_detector(checkpoint):
    """Its last stage is another pretrained part, and its schedule has milestones."""
    pytest.importorskip("mmdet", reason="MMDetection is not installed")
    config = "configs/benchmarks/mmdetection/voc0712/"
    config += "faster-rcnn_r50-c4_ms-24k_voc0712.py"
    random, _, half = configs(parse(config, checkpoint))
    assert random.model.backbone.init_cfg is None
    assert random.model.roi_head.shared_head.init_cfg is None
    assert half.model.roi_head.shared_head.init_cfg.checkpoint == checkpoint
    assert half.train_cfg.max_iters == 12000 == half.param_scheduler[1].end
    assert half.param_scheduler[1].milestones == [9000, 11000]


def test_speed():
    curves = {
        "random": {"mIoU": {0: [(5, 1.0), (10, 3.0)], 1: [(5, 1.0), (10, 5.0)]}},
        "pretrained": {"mIoU": {0: [(5, 2.0), (10, 7.0)], 1: [(5, 6.0), (10, 7.0)]}},
    }
    text = compare.compare_speed(curves)
    assert text.startswith("\nmIoU: the mean curve from the checkpoint passes 4.00,")
    assert "end, at step 5." in text
    for end, when in ((4.1, "at step 10"), (7.1, "never")):
        curves["random"] = {"mIoU": {0: [(5, 1.0), (10, end)]}}
        assert f"end, {when}." in compare.compare_speed(curves)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--seeds", "1", "1"], "each seed once"),
        (["--jobs", "0"], "--jobs 0"),
        (["--seeds", "x"], "--seeds: invalid int"),
        (["other.py"], "--pretrained takes one config, of detection or segmentation"),
        (["--holdout", "9"], "--holdout does not go with --pretrained"),
        (["--no-references"], "--no-references does not go with --pretrained"),
        (["--draws", "9"], "--draws does not go with --pretrained"),
    ],
)
def test_bad_arguments(argv, text, checkpoint, capsys):
    with pytest.raises(SystemExit):
        parse(CONFIG, checkpoint, *argv)
    assert text in capsys.readouterr().err


def test_no_checkpoint(capsys):
    with pytest.raises(SystemExit):
        parse(CONFIG, "none.pth")
    assert "there is no checkpoint" in capsys.readouterr().err


def test_nothing_detected_is_an_ap_of_zero(tmp_path):
    """MMDetection logs no AP then, and the seeds' curves must have the same steps."""
    run = compare.Run(compare.Arm("random", "", {}), 0, tmp_path / "seed0")
    logs = run.folder / "20260101_000000/vis_data"
    logs.mkdir(parents=True)
    run.config.write_text("train_cfg = dict(max_iters=45, val_interval=10)")
    records = [{"coco/bbox_mAP": 0.1, "step": 20}, {"coco/bbox_mAP": 0.3, "step": 45}]
    (logs / "scalars.json").write_text("\n".join(map(json.dumps, records)))
    curve = compare.read_curves(run)["box AP"]
    assert curve == [(10, 0), (20, 10), (30, 0), (40, 0), (45, 30)]


def test_configs_that_count_in_epochs(checkpoint):
    config = REPOSITORY / "configs/snclr_resnet-tiny_1xb128_fashion-mnist.py"
    with pytest.raises(SystemExit, match="max_iters is needed, not epochs"):
        configs(parse(config, checkpoint))


def test_transfer_to_segmentation(
    garment_scenes, scenes_checkpoint, tmp_path, monkeypatch
):
    """The whole comparison, short; a second call repeats nothing."""
    monkeypatch.chdir(garment_scenes.parents[1])
    command = [CONFIG, "--pretrained", str(scenes_checkpoint), "--seeds", "0"]
    command += ["--work-dir", str(tmp_path / "out"), "--jobs", "1", "--cfg-options"]
    command += ["train_cfg.max_iters=4", "train_cfg.val_interval=2"]
    command += ["train_dataloader.batch_size=2", "param_scheduler.1.end=4"]
    command += ["train_dataloader.num_workers=0", "val_dataloader.num_workers=0"]
    command += ["param_scheduler.0.end=1", "param_scheduler.1.begin=1"]
    with tools_in_process():
        report = call("compare.py", *command)
    steps = [
        [step for step, _ in report["curves"][arm]["mIoU"][0]] for arm in report["arms"]
    ]
    assert steps == [[2, 4], [2, 4], [2]]
    out = tmp_path / "out"
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    log = out / "pretrained/seed0/train.log"
    assert str(scenes_checkpoint) in log.read_text()
    size = log.stat().st_size
    with tools_in_process():
        assert call("compare.py", *command) == report
    assert log.stat().st_size == size
    assert json.loads((out / "results.json").read_text())["settings"]["seeds"] == [0]
    end = report["curves"]["random"]["mIoU"][0][-1][1]
    assert report["arms"]["random"]["mIoU"]["values"] == {0: end}
    table = (out / "table.md").read_text()
    assert f"| random | {end:.2f} | 1 |" in table
    assert f"from the checkpoint passes {end:.2f}, where" in table
    with pytest.raises(SystemExit, match="other settings"):
        call("compare.py", *command, "optim_wrapper.optimizer.lr=1")
