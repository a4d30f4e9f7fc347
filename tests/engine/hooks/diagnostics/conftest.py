"""Runs with all diagnostics that the tests of each hook share; see diagnostics.py."""

from functools import cache

import pytest
from helpers.diagnostics import comparable, find, train
from helpers.ranks import run_on_ranks

WATCHED = (
    dict(type="OnlineLinearProbeHook", window=3),
    dict(type="OnlineKNNHook", k=3, temperature=0.1, length=40, window=2),
    dict(type="NeighborPurityHook", interval=1),
    dict(type="NeighborAgeHook", interval=1),
    dict(type="PositivenessEntropyHook", interval=1),
    dict(type="CollapseHook", interval=4, num_batches=3),
)

# By name: settings of the Recorder, and overrides. The queue of 80 rows takes 32 in
# each of 8 steps.
SCENARIOS = {
    "plain": ({}, {}),
    "accumulates": (  # 96 rows at once
        {},
        dict(
            optim_wrapper__accumulative_counts=3,
            model__head__queue__length=50,
            train_cfg__max_epochs=3,
        ),
    ),
    "random start": ({}, dict(model__head__queue__init="random")),
    "skipped steps": (
        {},
        dict(
            optim_wrapper__type="SkippingOptimWrapper",
            model__head__attention__threshold=True,
            train_cfg__max_epochs=3,
        ),
    ),
    "partly labeled": (
        dict(unlabeled=(0, 5)),
        dict(model__channels_last=True, model__head__attention__gamma=0.1),
    ),
    "MoCoV3": ({}, dict(model__type="MoCoV3")),
}

# Of the 12 images of a batch rank r has r, r + W, ...: in each second batch three of
# rank 0's six, and all of rank 1's, have no label.
UNLABELED = {1: {0: (0, 2, 4, 1, 3, 5, 7, 9, 11)}, 2: {0: (0, 1, 2), 1: range(6)}}
RANK_SCENARIOS = {
    "shared": dict(model__head__queue__length=50),
    "own": dict(
        model__head__queue__sync=False,
        model__head__attention__threshold=True,
        model__head__queue__length=50,
        optim_wrapper__accumulative_counts=3,
        train_cfg__max_epochs=3,
    ),
}


@pytest.fixture(scope="session")
def watched(digits_root, tmp_path_factory):
    """``watched(scenario)``: the Runner after training."""

    @cache
    def run(scenario):
        recorder, overrides = SCENARIOS[scenario]
        work_dir = tmp_path_factory.mktemp("watched")
        return train(digits_root, work_dir, WATCHED, recorder, **overrides)

    return run


@pytest.fixture(scope="session")
def resumed(digits_root, tmp_path_factory, watched):
    """``resumed(**options)``: the plain run again from its first epoch's checkpoint."""

    def run(**options):
        path = f"{watched('plain').work_dir}/epoch_1.pth"
        work_dir = tmp_path_factory.mktemp("resumed")
        return train(digits_root, work_dir, WATCHED, load_from=path, **options)

    return run


@pytest.fixture(scope="session")
def watched_ranks(digits_root, tmp_path_factory):
    """``watched_ranks(world_size, scenario)``: :func:`outcome` of each rank, work_dir.

    ``load_from`` resumes.
    """

    @cache
    def run(world_size, scenario, load_from=None):
        work_dir = tmp_path_factory.mktemp("ranks")
        overrides = RANK_SCENARIOS[scenario]
        if load_from is not None:
            overrides = dict(overrides, resume=True, load_from=load_from)
        args = (world_size, digits_root, work_dir, overrides)
        return run_on_ranks(world_size, train_rank, *args), work_dir

    return run


def train_rank(rank, world_size, data_root, work_dir, overrides):
    runner = train(
        data_root,
        work_dir,
        WATCHED,
        dict(unlabeled=UNLABELED[world_size][rank]),
        **comparable(world_size),
        **overrides,
    )
    return outcome(runner)


def outcome(runner):
    """What tests compare, without the Runner: it can't leave its process."""
    recorder = find(runner, "Recorder")
    return dict(
        steps=recorder.steps,
        keys=recorder.keys,
        key_labels=recorder.key_labels,
        scalars={
            name.removeprefix("train/diagnostics/"): buffer.data[0].tolist()
            for name, buffer in runner.message_hub.log_scalars.items()
            if "/diagnostics/" in name
        },
        probe=dict(find(runner, "OnlineLinearProbeHook").probe.state_dict()),
        queue_labels=find(runner, "NeighborPurityHook").queue_labels["head"].rows,
    )
