import pytest
import torch
import torch.nn.functional as F

from pipeline.methods.losses import cross_entropy, kl, probabilities, reduce


@pytest.fixture
def logits():
    return torch.randn(2, 6, 10, dtype=torch.float64)


def test_losses_return_one_value_an_image(logits):
    p, q = logits
    assert kl(p, q).shape == cross_entropy(p, torch.zeros(6, dtype=torch.int64)).shape == (6,)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_equals_its_definition(logits, temperature):
    p, q = (torch.softmax(z / temperature, dim=1) for z in logits)
    torch.testing.assert_close(kl(*logits, temperature), (p * (p / q).log()).sum(dim=1))


def test_kl_is_zero_between_equals_and_positive_otherwise(logits):
    p, q = logits
    assert kl(p, p).abs().max() < 1e-15
    assert (kl(p, q) > 0).all()


def test_half_precision_logits_are_compared_in_single(logits):
    p, q = logits.to(torch.bfloat16)
    assert kl(p, q).dtype == probabilities(p).dtype == cross_entropy(p, probabilities(q)).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:reduction")  # torch warns that its 'mean' is not the mathematical one
@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
def test_reductions_are_those_of_torch(logits, reduction):
    p, q = logits
    expected = F.kl_div(F.log_softmax(q, dim=1), F.softmax(p, dim=1), reduction=reduction)
    torch.testing.assert_close(reduce(kl(p, q), reduction, classes=10), expected)


def test_mean_is_a_tenth_of_batchmean_on_ten_classes():
    values = torch.tensor([1.0, 3.0])
    assert reduce(values, "batchmean", 10) == 2.0
    assert reduce(values, "mean", 10) == pytest.approx(0.2)
