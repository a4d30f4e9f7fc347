import pytest
import torch

from snclr_mm.models.neighbor_products import neighbor_products


@pytest.mark.parametrize(
    "n, K, R, d", [(1, 1, 1, 1), (5, 3, 9, 4), (4, 0, 3, 2), (3, 9, 2, 5)]
)
def test_equals_gathering(n, K, R, d):
    query = torch.randn(n, d, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(R, d)
    index = torch.randint(R, (n, K))
    expected = torch.einsum("nd,nkd->nk", query, rows.double()[index])
    torch.testing.assert_close(neighbor_products(query, rows, index), expected)
    assert torch.autograd.gradcheck(neighbor_products, (query, rows, index))


def test_inference_mode():
    query, rows, index = torch.randn(3, 4), torch.randn(9, 4), torch.randint(9, (3, 2))
    expected = neighbor_products(query, rows, index)
    with torch.inference_mode():
        values = neighbor_products(query.clone(), rows.clone(), index.clone())
    torch.testing.assert_close(values, expected)


def test_different_numbers_of_neighbors():
    query = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    rows, index = torch.randn(7, 3).double(), torch.randint(7, (6,))
    owner = torch.tensor([0, 0, 2, 2, 2, 3])
    offsets = torch.tensor([0, 2, 2, 5])
    expected = (query[owner] * rows[index]).sum(1)
    torch.testing.assert_close(neighbor_products(query, rows, index, offsets), expected)
    assert torch.autograd.gradcheck(neighbor_products, (query, rows, index, offsets))
