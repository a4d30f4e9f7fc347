import json
import shutil

import cv2
import numpy as np
import pytest
from helpers.command import call, load_tool, tools_in_process
from helpers.tiny import REPOSITORY

from snclr_mm.datasets import ImageFolder
from snclr_mm.evaluation import describe_images

compare = load_tool("compare.py")

TINY = [
    "train_dataloader.num_workers=0",
    "train_dataloader.batch_size=64",
    "model.backbone.num_stages=1",
    "model.backbone.stem_channels=8",
    "model.backbone.base_channels=8",
    "model.backbone.strides=(2,)",
    "model.backbone.dilations=(1,)",
    "model.backbone.out_indices=(0,)",
    "model.neck.in_channels=8",
    "model.neck.hid_channels=16",
]


def command(digits_root, work_dir, *options):
    data = [
        f"{stage}.dataset.data_root={digits_root}"
        for stage in (
            "train_dataloader",
            "val_dataloader",
            "val_cfg.bank_dataloader",
            "test_dataloader",
            "test_cfg.bank_dataloader",
        )
    ]
    return [
        compare.METHODS[-1],
        f"--work-dir={work_dir}",
        "--epochs=1",
        "--images=256",
        "--holdout=100",
        "--protocols",
        "knn",
        *options,
        "--cfg-options",
        *TINY,
        *data,
    ]


@pytest.fixture(scope="module")
def comparison(digits_root, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("comparison")
    options = ["--seeds", "3", "--vary", "model.head.num_neighbors", "2"]
    with tools_in_process():
        return work_dir, call("compare.py", *command(digits_root, work_dir, *options))


def test_every_method_and_seed_is_there(comparison):
    work_dir, report = comparison
    assert list(report["arms"]) == [
        "random",
        "pixels",
        "snclr",
        "snclr num_neighbors=2",
    ]
    for row in report["arms"].values():
        values = row["knn"]["values"]
        assert list(values) == [3]
        assert all(0 < value <= 100 for value in values.values())
        assert row["knn"]["mean"] == pytest.approx(sum(values.values()) / len(values))
    written = json.loads((work_dir / "results.json").read_text())
    settings = {
        "configs": [compare.METHODS[-1]],
        "pretrained": None,
        "epochs": 1,
        "images": 256,
        "holdout": 100,
        "seeds": [3],
        "protocols": ["knn"],
        "per_class": 10,
        "draws": 20,
    }
    assert settings.items() <= written["settings"].items()
    assert written["settings"]["cfg_options"]["train_dataloader.batch_size"] == 64
    assert "| snclr num_neighbors=2 |" in (work_dir / "table.md").read_text()
    assert cv2.imread(str(work_dir / "comparison.png")).std() > 10


def test_held_out_images_come_from_the_training_files(comparison):
    from mmengine.config import Config
    from mmpretrain.registry import DATASETS

    cfg = Config.fromfile(comparison[0] / "snclr" / "seed3.py")
    bank = DATASETS.build(cfg.val_cfg.bank_dataloader.dataset)
    queries = DATASETS.build(cfg.val_dataloader.dataset)
    whole = DATASETS.build({**cfg.val_dataloader.dataset, "indices": None})
    assert [len(bank), len(queries), len(whole)] == [256, 100, 1437]
    expected = whole.get_data_info(1437 - 100)["img"]
    assert (queries.get_data_info(0)["img"] == expected).all()
    assert cfg.train_dataloader.dataset.indices == 256


def test_a_comparison_goes_on_and_repeats_nothing(comparison, digits_root, capsys):
    work_dir, report = comparison
    options = ["--seeds", "3", "--vary", "model.head.num_neighbors", "2"]
    # As if it had been interrupted in one evaluation.
    lost = work_dir / "snclr_num_neighbors=2/seed3/evaluation.json"
    before = {
        path: path.stat().st_mtime_ns
        for path in work_dir.glob("*/seed*/*")
        if path.name in ("evaluation.json", "trained") or path.suffix == ".pth"
    }
    lost.unlink()
    with tools_in_process():
        again = call("compare.py", *command(digits_root, work_dir, *options))
    assert again == report
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path]} == {lost}
    assert capsys.readouterr().out.count("(finished before)") == 3


def test_other_settings_are_not_mixed_in(comparison, digits_root):
    changed = command(digits_root, comparison[0], "--seeds", "3")
    with pytest.raises(SystemExit, match="other settings"):
        call("compare.py", *changed, "model.head.temperature=0.3")


def test_other_data_are_not_mixed_in(comparison, digits_root, tmp_path):
    other = shutil.copytree(digits_root, tmp_path / "other")
    labels = next(other.glob("train-labels*"))
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x09")
    with pytest.raises(SystemExit, match=r"other images in train_.*data\.json"):
        call("compare.py", *command(other, comparison[0], "--seeds", "3"))


def test_data_are_files_by_name_and_size(tmp_path):
    for folder in ("a/x", "b/x"):
        (tmp_path / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / folder / "1.png"), np.zeros((4, 4, 3), np.uint8))

    def describe(dataset):
        return describe_images(dataset, range(len(dataset)))

    one, moved = (ImageFolder(data_root=str(tmp_path / name)) for name in "ab")
    assert describe(one) == describe(moved)
    cv2.imwrite(str(tmp_path / "b/x/1.png"), np.eye(4, dtype=np.uint8))
    assert describe(one) != describe(moved)


def test_another_evaluation_needs_no_training(comparison, digits_root, capsys):
    work_dir, _ = comparison
    checkpoint = next(work_dir.glob("snclr/seed3/*.pth"))
    before = checkpoint.stat().st_mtime_ns
    other = ["--seeds=3", "--no-references", "--protocols", "few-shot", "--per-class=2"]
    with tools_in_process():
        changed = call("compare.py", *command(digits_root, work_dir, *other))
    assert list(changed["arms"]["snclr"]) == ["few-shot-2"]
    assert checkpoint.stat().st_mtime_ns == before
    assert "finished before" not in capsys.readouterr().out


def test_a_failed_run_is_reported_and_the_others_are_kept(
    digits_root, tmp_path, capsys
):
    """The run that fails is a process of its own, as always but in these tests."""
    options = ["--seeds=0", "--no-references", "--vary", "model.head.temperature", "-1"]
    with (
        tools_in_process(but="temperature"),
        pytest.raises(SystemExit, match="1 runs failed"),
    ):
        call("compare.py", *command(digits_root, tmp_path, *options))
    printed = capsys.readouterr().out
    log = tmp_path / "snclr_temperature=-1/seed0/train.log"
    assert f"FAILED, see {log}" in printed
    assert "model.head.temperature" in log.read_text()
    arms = json.loads((tmp_path / "results.json").read_text())["arms"]
    assert arms["snclr"]["knn"]["mean"] > 0 and not arms["snclr temperature=-1"]


def test_all_runs_failed(digits_root, tmp_path, monkeypatch):
    def run_tool(*args):
        raise compare.subprocess.CalledProcessError(1, "train", output="train.log")

    monkeypatch.setattr(compare, "run_tool", run_tool)
    with pytest.raises(SystemExit, match="2 runs failed"):
        call(
            "compare.py",
            *command(digits_root, tmp_path, "--no-references", "--seeds", "0", "1"),
        )
    assert "| snclr | 0 |" in (tmp_path / "table.md").read_text()


def test_the_default_compares_all_methods():
    arms = compare.list_arms(compare.parse_args([]))
    names = ["random", "pixels", *compare.BASELINES, "snclr"]
    assert [arm.name for arm in arms] == names


def test_pixels_are_the_same_for_each_seed(digits_root, tmp_path):
    args = compare.parse_args(command(digits_root, tmp_path, "--seeds", "0", "1"))
    runs = compare.list_runs(compare.list_arms(args), args)
    names = ["random", "pixels", "snclr", "random", "snclr"]
    assert [run.arm.name for run in runs] == names
    assert [run.seed for run in runs] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "given, used", [(None, ["0", "1"]), ("GPU-a, 5", ["GPU-a", "5"])]
)
def test_a_gpu_and_a_share_of_the_cores(given, used, tmp_path, monkeypatch):
    calls = []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:  # to this process, by a scheduler
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(compare.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(compare.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(compare.os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(
        compare.subprocess, "call", lambda _, env, **kw: calls.append(env)
    )
    for slot in range(4):
        compare.run_tool("train", [], tmp_path, slot, jobs=4)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in calls] == [*used, *used]
    assert {env["OMP_NUM_THREADS"] for env in calls} == {"2"}


def test_mean_and_spread():
    arm = compare.Arm("a", "", {})
    values = {0: 1.0, 1: 2.0, 2: 6.0}
    outcomes = [(compare.Run(arm, s, None), {"knn": v}) for s, v in values.items()]
    failed = (compare.Run(arm, 3, None), None)
    summary = compare.summarize([arm], [*outcomes, failed])
    # Standard deviation of a sample: sqrt((4 + 1 + 9) / 2).
    assert summary["a"]["knn"] == {
        "mean": 3.0,
        "std": pytest.approx(7**0.5),
        "values": values,
    }
    assert "| a | 3.00 ± 2.65 | 3 |" in compare.as_table(summary)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs=0"], "--epochs 0"),
        (["--jobs=0"], "--jobs 0"),
        (["--seeds", "1", "1"], "each seed once"),
        (["--vary", "model.head.temperature"], "--vary needs"),
        (["--vary", "randomness.seed", "1"], "what --seeds sets"),
        (["--holdout=100"], "--holdout needs --images"),
    ],
)
def test_bad_options(options, message, capsys):
    with pytest.raises(SystemExit):
        compare.parse_args(options)
    assert message in capsys.readouterr().err


def test_configs_without_epochs_or_labels():
    folder = REPOSITORY / "configs/small_images"
    for name, missing in (
        ("snclr_r18-half_1xb128-1500i_tree-crowns.py", "train_cfg.max_epochs"),
        ("snclr_r18-half_1xb128-25e_garment-scenes.py", "val_cfg.bank_dataloader"),
    ):
        with pytest.raises(SystemExit, match=f"{name}: .* there is no {missing}"):
            compare.main([str(folder / name)])


def test_splits_larger_than_the_data(digits_root, tmp_path):
    with pytest.raises(SystemExit, match="exceed the 1437 images"):
        call("compare.py", *command(digits_root, tmp_path), "--holdout=1200")
