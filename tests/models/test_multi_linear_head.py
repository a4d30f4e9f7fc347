import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmpretrain.structures import DataSample

from snclr_mm.models import MultiLinearHead


def classifier(lr_factors, num_classes=3):
    """A frozen small ResNet and linear classifiers on it."""
    model = MODELS.build(
        dict(
            type="ImageClassifier",
            backbone=dict(
                type="ResNet_CIFAR",
                depth=18,
                num_stages=1,
                stem_channels=8,
                base_channels=8,
                strides=(2,),
                dilations=(1,),
                out_indices=(0,),
                frozen_stages=1,
                norm_eval=True,
            ),
            neck=dict(type="GlobalAveragePooling"),
            head=dict(
                type="MultiLinearHead",
                num_classes=num_classes,
                in_channels=8,
                lr_factors=lr_factors,
                init_cfg=dict(type="Constant", layer="Linear", val=0.01),
            ),
        )
    )
    torch.manual_seed(0)  # here, as each classifier takes random numbers when built
    model.init_weights()
    return model


def batches(photos, steps=6, size=6):
    """Tiles of real photographs with labels; [n, 3, 32, 32] and [n] per step."""
    generator = np.random.default_rng(0)
    for _ in range(steps):
        labels = generator.integers(3, size=size)
        corners = generator.integers(390, size=(size, 2))
        tiles = [
            photos[label % 2][y : y + 32, x : x + 32] // (1 + label // 2)
            for label, (y, x) in zip(labels, corners, strict=True)
        ]
        images = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2) / 60.0 - 2
        yield images, torch.from_numpy(labels)


def train(model, photos, lr):
    """Weights and biases, [steps, classifiers, num_classes, 9], and the features."""
    build = OPTIM_WRAPPER_CONSTRUCTORS.get("MultiLinearOptimWrapperConstructor")
    optim_wrapper = build(
        dict(optimizer=dict(type="SGD", lr=lr, momentum=0.9, weight_decay=0.0))
    )(model)
    model.train()
    trajectory, features = [], []
    for images, labels in batches(photos):
        samples = [DataSample().set_gt_label(label) for label in labels]
        features.append((model.extract_feat(images)[0].detach(), labels))
        loss, _ = model.parse_losses(model.loss(images, samples))
        optim_wrapper.update_params(loss)
        trajectory.append(
            torch.stack(
                [
                    torch.cat([fc.weight, fc.bias[:, None]], dim=1).detach().clone()
                    for fc in model.head.classifiers
                ]
            )
        )
    return torch.stack(trajectory), features


def alone(features, lr, num_classes=3):
    """One classifier trained by itself: softmax regression with momentum, float64."""
    weight = np.full((num_classes, 9), 0.01)
    weight[:, 8] = 0  # biases
    velocity = np.zeros_like(weight)
    for x, labels in features:
        x = np.concatenate([x.double().numpy(), np.ones((len(x), 1))], axis=1)
        scores = np.exp(x @ weight.T)
        error = scores / scores.sum(1, keepdims=True) - np.eye(num_classes)[labels]
        velocity = 0.9 * velocity + error.T @ x / len(x)
        weight = weight - lr * velocity
        yield weight


def test_each_classifier_trains_as_it_would_alone(photos):
    model = classifier((0.1, 1, 20))
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    trajectory, features = train(model, photos, lr=0.05)
    for i, factor in enumerate(model.head.lr_factors):
        expected = np.stack(list(alone(features, 0.05 * factor)))
        np.testing.assert_allclose(trajectory[:, i], expected, rtol=1e-4, atol=1e-6)
        assert abs(expected[-1] - expected[0]).max() > 1e-3
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_diverged_classifier_does_not_touch_the_others(photos):
    calm, _ = train(classifier((1,)), photos, lr=0.05)
    wild, _ = train(classifier((1, 5e39)), photos, lr=0.05)
    assert not wild[-1, 1].isfinite().all()
    assert torch.equal(wild[:, 0], calm[:, 0])


def test_losses_and_predictions():
    head = MultiLinearHead(5, 4, lr_factors=[0.1, 3], topk=(1,), cal_acc=True)
    features, labels = torch.randn(7, 4), torch.arange(7) % 5
    samples = [DataSample().set_gt_label(label) for label in labels]
    losses = head.loss((torch.zeros(7, 2), features), samples)
    scores = [fc(features) for fc in head.classifiers]
    assert not torch.equal(*scores)
    assert list(losses) == [
        "loss_x0.1",
        "accuracy_top-1_x0.1",
        "loss_x3",
        "accuracy_top-1_x3",
    ]
    for name, score in zip(("x0.1", "x3"), scores, strict=True):
        torch.testing.assert_close(
            losses[f"loss_{name}"], F.cross_entropy(score, labels)
        )
    predicted = head.predict((features,), samples)
    assert predicted[2] is samples[2]
    found = torch.stack([sample.pred_labels for sample in predicted])
    assert torch.equal(found, torch.stack([s.argmax(1) for s in scores], dim=1))
    assert predicted[0].lr_factors == (0.1, 3)
    assert len(head.predict((features,))) == 7


def test_classifiers_start_from_the_same_weights():
    head = MultiLinearHead(100, 200, lr_factors=(1, 2, 3))
    head.init_weights()
    first = head.classifiers[0]
    assert first.weight.std().item() == pytest.approx(0.01, rel=0.02)
    for other in head.classifiers[1:]:
        assert torch.equal(other.weight, first.weight)
        assert torch.equal(other.bias, first.bias)
        assert other.weight.data_ptr() != first.weight.data_ptr()


@pytest.mark.parametrize("factors", [(), (1, 0), (1, -1), (1, 3, 1)])
def test_bad_factors(factors):
    with pytest.raises(ValueError, match=r"model\.head\.lr_factors=\("):
        MultiLinearHead(5, 4, lr_factors=factors)
