import pytest
import torch
from mmpretrain.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS


def model(head="MultiLinearHead", frozen_stages=4, **kwargs):
    return MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(
                type="ResNet", depth=18, base_channels=4, frozen_stages=frozen_stages
            ),
            neck=dict(type="GlobalAveragePooling"),
            head=dict(type=head, num_classes=3, in_channels=32, **kwargs),
        )
    )


def build(model):
    return OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type="MultiLinearOptimWrapperConstructor",
            optim_wrapper_cfg=dict(optimizer=dict(type="SGD", lr=2.0, momentum=0.9)),
        )
    )(model)


@pytest.mark.parametrize("wrap", [lambda model: model, torch.nn.DataParallel])
def test_learning_rates(wrap):
    factors = tuple(range(1, 13))  # 1. is no part of 11.
    net = model(lr_factors=factors)
    optimizer = build(wrap(net)).optimizer
    rates = {id(g["params"][0]): g["lr"] for g in optimizer.param_groups}
    assert len(rates) == 2 * len(factors)
    for factor, classifier in zip(factors, net.head.classifiers, strict=True):
        for parameter in classifier.parameters():
            assert rates[id(parameter)] == 2.0 * factor


def test_backbone_that_would_train_is_refused():
    with pytest.raises(
        ValueError, match=r"15 other parameters, first backbone\.layer4.*frozen_stages"
    ):
        build(model(lr_factors=(1, 3), frozen_stages=3))


def test_other_head_is_refused():
    with pytest.raises(ValueError, match="MultiLinearHead, not LinearClsHead"):
        build(model("LinearClsHead"))
