import pytest
import torch

from snclr_mm.models import neighbor_products as module
from snclr_mm.models.neighbor_products import neighbor_products


@pytest.mark.parametrize("chunk", [1, 40, 2**20])
@pytest.mark.parametrize("n, K, R, d", [(1, 1, 1, 1), (5, 3, 9, 4), (4, 0, 3, 2)])
def test_equals_gathering(n, K, R, d, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    query = torch.randn(n, d, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(R, d)
    index = torch.randint(R, (n, K))
    expected = torch.einsum("nd,nkd->nk", query, rows.double()[index])
    torch.testing.assert_close(neighbor_products(query, rows, index), expected)
    assert torch.autograd.gradcheck(neighbor_products, (query, rows, index))
