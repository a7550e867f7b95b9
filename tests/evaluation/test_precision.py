"""Laws of precision and compilation: what they may change, and what they must not."""

import subprocess
import sys

import pytest
import torch
from conftest import NETWORKS, make_images, make_network, make_surface

from fourfold.errors import InputError
from fourfold.evaluation.grid import evaluate_points, predict
from fourfold.evaluation.precision import PRECISIONS
from fourfold.training.fit import fit
from fourfold.training.train import train

IMAGES, LABELS = make_images(24)
FLOAT32_NETWORKS = [name for name in NETWORKS if name not in ("bfloat16", "float64")]


def fitted(name, **settings):
    surface = make_surface(name)
    common = {"epochs": 2, "lr": 0.1, "batch_size": 8}
    table = fit(surface, make_network(name), IMAGES, LABELS, **common | settings)
    return surface, table


@pytest.mark.parametrize("name", FLOAT32_NETWORKS)
def test_bfloat16_passes_leave_control_points_and_their_moves_in_float32(name):
    one_step = {"epochs": 1, "batch_size": 24, "points_per_step": 1}
    exact, rounded = (fitted(name, precision=p, **one_step)[0] for p in ("float32", "bfloat16"))
    assert rounded.control_points.dtype == torch.float32
    start = make_surface(name)
    free = list(exact.free_rows)
    move, rounded_move = (
        surface.control_points[free] - start.control_points[free] for surface in (exact, rounded)
    )
    assert move.norm() > 0
    # Eight bits of mantissa: the direction is nearly the same, and it is not exactly the same.
    cosine = (move * rounded_move).sum() / (move.norm() * rounded_move.norm())
    assert cosine > 0.8  # VGG16, sixteen layers with BatchNorm over few pixels, loses most
    assert not torch.equal(move, rounded_move)


def test_training_in_bfloat16_keeps_float32_parameters_that_follow_every_step():
    """Autocast keeps copies of parameters: a loop that entered it once would never move on."""
    networks = {}
    for precision in ("float32", "bfloat16"):
        networks[precision] = network = make_network("no-norm")
        rows = train(network, IMAGES, LABELS, epochs=30, lr=0.1, seed=0, batch_size=8,
                     weight_decay=0.0, precision=precision)  # fmt: skip
        assert all(p.dtype == torch.float32 for p in network.parameters())
        assert rows["nll"].iloc[-1] < 0.7 * rows["nll"].iloc[0]


def test_predictions_are_float32_in_every_precision():
    network = make_network("batchnorm")
    exact = predict(network, IMAGES)
    for precision in PRECISIONS:
        logits = predict(network, IMAGES, precision=precision)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, exact, rtol=0.1, atol=0.1)
    assert torch.equal(predict(network, IMAGES, precision="tf32"), exact)  # a CPU has no TF32


def test_corners_in_bfloat16_are_evaluated_as_every_other_point():
    surface, _ = fitted("batchnorm")
    exact, rounded = (
        evaluate_points(
            surface, make_network("batchnorm"), {"train": (IMAGES, LABELS)}, [(0, 0), (0.5, 0.5)],
            precision=precision,
        ).table
        for precision in ("float32", "bfloat16")
    )  # fmt: skip
    assert rounded["statistics"].tolist() == ["reestimated", "reestimated", "own"]
    assert rounded["nll"].tolist() == pytest.approx(exact["nll"].tolist(), rel=0.05)
    assert (rounded["nll"] != exact["nll"]).all()


@pytest.mark.parametrize("function", ["fit", "train", "evaluate"])
def test_an_unknown_precision_is_refused(function):
    surface, network, common = make_surface("no-norm"), make_network("no-norm"), {"lr": 0.1}
    with pytest.raises(InputError, match=r"float16.*float32, tf32, bfloat16"):
        if function == "fit":
            fit(surface, network, IMAGES, LABELS, batch_size=8, precision="float16")
        elif function == "train":
            common |= {"epochs": 1, "seed": 0, "batch_size": 8}
            train(network, IMAGES, LABELS, **common, precision="float16")
        else:
            splits = {"train": (IMAGES, LABELS)}
            evaluate_points(surface, network, splits, [(0, 0)], precision="float16")


@pytest.mark.parametrize("name", ["batchnorm", "tied"])
def test_a_compiled_network_is_fitted_to_the_same_surface(name, monkeypatch):
    """Compiled by the part of the compiler that needs no C++: capture, and autograd ahead of time.

    The parameters of the fit are views that point elsewhere in every step; a compiler that took
    the first ones for constants would train a surface that stands still.
    """
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compiler(module, backend="aot_eager"))
    plain, compiled = fitted(name), fitted(name, compile=True)
    torch.testing.assert_close(
        plain[0].control_points, compiled[0].control_points, rtol=1e-4, atol=1e-5
    )
    networks = [make_network(name) for _ in range(2)]
    for network, choice in zip(networks, (False, True), strict=True):
        train(network, IMAGES, LABELS, epochs=2, lr=0.1, seed=0, batch_size=8, compile=choice)
    for a, b in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


SETTINGS = {
    "pass": "highest",
    "torch.set_float32_matmul_precision('medium')": "medium",
    "torch.backends.cuda.matmul.allow_tf32 = True": "high",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'": "refused",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'": "highest",
}
PROGRAM = """
import torch
from fourfold.evaluation.precision import compute_precision

def settings():
    try:
        found = torch.get_float32_matmul_precision()
    except RuntimeError:  # since somebody has set fp32_precision
        found = "refused"
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    return found, [backend.fp32_precision.replace("none", "ieee") for backend in backends]

SET
before = settings()
for name, expected in (("float32", "ieee"), ("tf32", "tf32")):
    with compute_precision(name, torch.device("cuda")):
        assert settings()[1] == [expected] * 3, settings()
    assert settings() == before, (name, before, settings())
print(before[0])
"""


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_tf32_may_do_is_afterwards_what_it_was_however_it_was_set(setting):
    """In processes of their own, as these settings are of the process and can't all be undone."""
    program = PROGRAM.replace("SET", setting)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == (SETTINGS[setting], 0), done.stderr
