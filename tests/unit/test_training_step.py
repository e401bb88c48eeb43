"""Loss, schedule, averaging and configuration."""

from dataclasses import asdict, replace
from itertools import pairwise

import pytest
import torch

from governance.errors import ConfigError
from training.checkpoint import config_from_json, config_json
from training.config import AugmentConfig, ModelConfig, TrainConfig
from training.loss import combine, ctc, frames_needed
from training.model import AcousticModel
from training.optimizer import Muon, orthogonalise
from training.schedule import learning_rate
from training.step import Average, make_optimizer
from training.subsampling import inputs_for, output_frames

ALL = torch.tensor([[0, 99]])  # frames that may hold labels
CONFIG = TrainConfig(model=ModelConfig(), augment=AugmentConfig())


def test_ctc_is_per_label_and_matches_the_sum_of_rows():
    torch.manual_seed(0)
    logits = torch.randn(2, 9, 5).log_softmax(-1)
    frames, labels = torch.tensor([9, 6]), torch.tensor([3, 2])
    tokens = torch.tensor([1, 2, 3, 4, 4])
    spoken = torch.tensor([[2, 9], [0, 5]])
    both = ctc(logits, frames, tokens, labels, spoken)
    first = ctc(logits[:1], frames[:1], tokens[:3], labels[:1], spoken[:1])
    second = ctc(logits[1:], frames[1:], tokens[3:], labels[1:], spoken[1:])
    assert torch.isclose(both, (3 * first + 2 * second) / 5)


def test_infeasible_row_counts_zero_and_gives_no_gradient():
    logits = torch.randn(1, 2, 5, requires_grad=True)
    loss = ctc(
        logits.log_softmax(-1), torch.tensor([2]), torch.tensor([4, 4]), torch.tensor([2]), ALL
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(logits.grad).all() and logits.grad.abs().max() == 0


def test_no_label_is_spelled_where_nobody_speaks():
    """The loss is that of the frames with speech, plus a blank in each of the others."""
    torch.manual_seed(0)
    logits = torch.randn(1, 12, 5, requires_grad=True)
    logp, (tokens, labels) = logits.log_softmax(-1), (torch.tensor([1, 2]), torch.tensor([2]))
    loss = ctc(logp, torch.tensor([10]), tokens, labels, torch.tensor([[3, 8]]))
    rest = ctc(logp[:, 3:8], torch.tensor([5]), tokens, labels, ALL)
    silent = [0, 1, 2, 8, 9]  # the last two are padding
    assert torch.isclose(loss, rest - logp[0, silent, 0].sum() / 2)
    loss.backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert (logits.grad[0, silent, 0] < 0).all() and (logits.grad[0, silent, 1:] > 0).all()
    assert (logits.grad[0, 10:] == 0).all()


def test_frames_needed_counts_repeats():
    assert frames_needed([]) == 0
    assert frames_needed([1, 2, 3]) == 3
    assert frames_needed([1, 1, 1, 2]) == 6


def test_middle_loss_is_weighed():
    final, middle = torch.tensor(2.0), torch.tensor(4.0)
    assert float(combine(final, middle, 0.25).total) == 2.5
    assert float(combine(final, None, 0.25).total) == 2.0


def test_learning_rate_rises_then_falls_to_the_floor():
    config = replace(CONFIG, steps=1000, warmup_steps=100, learning_rate=1.0, final_lr_share=0.05)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in (99, 100)
    assert all(a <= b for a, b in pairwise(rates[:100]))
    assert all(a >= b for a, b in pairwise(rates[100:]))
    assert rates[-1] == pytest.approx(0.05, abs=1e-3)


def test_average_follows_and_is_restored():
    model = torch.nn.Linear(2, 1)
    average = Average(model, horizon_steps=10)
    start = {name: tensor.clone() for name, tensor in average.state().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.update(model, step=1000)
    moved = average.state()
    assert torch.allclose(moved["weight"], start["weight"] + 0.1)
    other = Average(model, horizon_steps=10)
    other.restore(moved)
    assert torch.equal(other.state()["bias"], moved["bias"])


@pytest.mark.parametrize("frames", range(0, 40))
def test_output_frames_are_what_the_convolutions_give(frames):
    by_hand = max(0, ((frames - 3) // 2 + 1 - 3) // 2 + 1) if frames >= 3 else 0
    assert output_frames(frames) == by_hand
    assert int(output_frames(torch.tensor([frames]))[0]) == by_hand
    assert output_frames(inputs_for(frames)) == frames


def test_config_survives_json_and_refuses_unknown_keys():
    config = replace(CONFIG, steps=7, chunk_frames=(4, 9))
    assert config_from_json(config_json(config)) == config
    text = config_json(config).replace('"steps"', '"stepz"')
    with pytest.raises(ConfigError, match="stepz"):
        config_from_json(text)


@pytest.mark.parametrize("change", [{"d_model": 100, "heads": 3}, {"middle_layer": 6}])
def test_impossible_shapes_are_refused(change):
    with pytest.raises(ConfigError, match=r"params\.yaml"):
        ModelConfig(**{**asdict(ModelConfig()), **change})


def test_model_is_a_function_of_its_seed():
    config = ModelConfig(d_model=16, layers=2, heads=2, middle_layer=1)
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(AcousticModel(config).state_dict()["head.weight"])
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_orthogonalising_evens_out_the_singular_values():
    torch.manual_seed(0)
    for shape in ((3, 32, 80), (3, 80, 32), (3, 32, 40)):
        skewed = torch.randn(shape) * torch.logspace(0, -1, shape[2])
        values = torch.linalg.svdvals(orthogonalise(skewed))
        assert float(values.min()) > 0.5 and float(values.max()) < 1.3


def test_following_the_small_side_changes_nothing_but_the_work():
    torch.manual_seed(0)
    wide = torch.randn(2, 24, 60) * torch.logspace(0, -3, 60)
    expected = wide / wide.flatten(1).norm(dim=1)[:, None, None]
    for _ in range(5):
        gram = expected @ expected.mT
        expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
    torch.testing.assert_close(orthogonalise(wide), expected, atol=2e-4, rtol=0)


def test_the_rest_moves_as_torchs_adamw_does():
    torch.manual_seed(0)
    start = torch.randn(7)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    one = Muon([], [ours], lr=0.01, weight_decay=0.1)
    other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), weight_decay=0.0)
    for _ in range(5):
        gradient = torch.randn(7)
        for optimizer, parameter in ((one, ours), (other, theirs)):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_every_weight_is_trained_by_exactly_one_rule():
    model = AcousticModel(CONFIG.model)
    optimizer = make_optimizer(model, CONFIG)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_a_muon_step_has_the_size_of_the_learning_rate():
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.zeros(48, 16))
    matrix.grad = torch.randn(48, 16) * 1e-4  # whatever the gradient's scale
    Muon([matrix], [], lr=0.01, weight_decay=0.0).step()
    assert float(matrix.detach().square().mean().sqrt()) == pytest.approx(0.002, rel=0.3)
