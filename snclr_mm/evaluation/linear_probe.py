import numpy as np

#: Inverse L2 strengths that are tried; the best is chosen on held-out training data.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)


def linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    seed: int = 0,
) -> float:
    """Accuracy of a logistic regression on frozen features.

    Features are standardised with the training data's mean and deviation. The L2
    strength is chosen on a held-out fifth of the training data (five draws of it below
    1000 images), then all of it is used.

    Args:
        features (np.ndarray): Training features, [n, C].
        labels (np.ndarray): Their classes, [n], at least two images of each.
        test_features (np.ndarray): [m, C].
        test_labels (np.ndarray): [m].
        seed (int): Of the held-out draws. Defaults to 0.

    Returns:
        float: Top-1 accuracy on the test features, percent.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, tol=1e-3))
    search = GridSearchCV(
        probe,
        {"logisticregression__C": STRENGTHS},
        cv=StratifiedShuffleSplit(
            n_splits=1 if len(labels) >= 1000 else 5, test_size=0.2, random_state=seed
        ),
    )
    search.fit(features.astype(np.float32), labels)
    return 100 * search.score(test_features.astype(np.float32), test_labels)


def few_shot_probe(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    per_class: int = 10,
    draws: int = 5,
) -> float:
    """Mean accuracy of :func:`linear_probe` on a few labels per class.

    Args:
        features, labels, test_features, test_labels: As for :func:`linear_probe`.
        per_class (int): Labels per class. Defaults to 10.
        draws (int): Random draws (seeds 0, 1, ...) to average. Defaults to 5.

    Returns:
        float: Top-1 accuracy, percent.

    Raises:
        ValueError: If a class has fewer than ``per_class`` images.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < per_class:
        scarce = classes[counts.argmin()]
        raise ValueError(
            f"per_class={per_class} labels asked, but class {scarce} has "
            f"{counts.min()} images."
        )
    accuracies = []
    for seed in range(draws):
        generator = np.random.default_rng(seed)
        rows = np.concatenate(
            [
                generator.choice(np.flatnonzero(labels == c), per_class, replace=False)
                for c in classes
            ]
        )
        accuracies.append(
            linear_probe(features[rows], labels[rows], test_features, test_labels, seed)
        )
    return float(np.mean(accuracies))
