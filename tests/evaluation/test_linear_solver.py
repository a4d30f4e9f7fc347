import pytest
import torch

from snclr_mm.evaluation.linear_solver import fit_linear


@pytest.mark.parametrize("n, width", [(40, 6), (6, 40)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_ridge_regression(n, width, bias):
    """Half the mean squared error has a solution in closed form."""
    generator = torch.Generator().manual_seed(0)
    # Correlated features of very different scales.
    mixing = torch.randn(width, width, generator=generator, dtype=torch.double)
    scales = torch.logspace(-1, 1, width, dtype=torch.double)
    x = torch.randn(n, width, generator=generator, dtype=torch.double) @ mixing * scales
    x -= x.mean(dim=0)
    y = torch.randn(n, 3, generator=generator, dtype=torch.double) + 2
    penalty = torch.tensor([1e-3, 1.0, 100.0], dtype=torch.double)

    def loss(outputs, rows):
        return (outputs - y[rows, None]).square().sum() / (2 * n)

    weight, b = fit_linear(x, penalty, 3, loss, 1.0, bias, max_iter=200, chunk_size=45)
    assert weight.shape == (width, 3, 3) and b.shape == (3, 3)
    for g, strength in enumerate(penalty):
        gram = x.T @ x / n + strength * torch.eye(width, dtype=torch.double)
        expected = torch.linalg.solve(gram, x.T @ y / n)
        torch.testing.assert_close(weight[:, g], expected, rtol=1e-4, atol=1e-5)
        mean = y.mean(dim=0) if bias else torch.zeros(3, dtype=torch.double)
        torch.testing.assert_close(b[g], mean, rtol=1e-4, atol=1e-6)
