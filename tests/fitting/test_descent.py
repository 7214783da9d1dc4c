"""The loop of a descent: its steps, what it keeps, when it stops, and how it goes on."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import taichi_raster as tr

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")
F64 = torch.float64
GOAL = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [3.0, -2.0]], dtype=F64)


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    """A process that a shell starts in the background ignores SIGINT, and a descent leaves that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(items: int = 3) -> Tensor:
    return torch.zeros(items, 2, dtype=F64, requires_grad=True)


def apart(x: Tensor) -> Tensor:
    return (x - GOAL[: len(x)]).square().sum(1)


def each(descent: tr.Descent, body: Callable[[tr.Step], object]) -> None:
    for step in descent:
        body(step)


def run(descent: tr.Descent, x: Tensor, loss: Callable[[Tensor], Tensor] = apart) -> tr.Descent:
    for step in descent:
        step.descend(loss(x))
    return descent


# Steps --------------------------------------------------------------------------------------------


def test_it_is_the_loop_that_one_would_write() -> None:
    x, y = start(), start()
    rate = tr.Geometric(0.3, 0.03)
    adam = torch.optim.Adam([y], lr=0.3)
    fall = torch.optim.lr_scheduler.ExponentialLR(adam, 0.1 ** (1 / 20))
    for _ in range(20):
        adam.zero_grad()
        apart(y).sum().backward()
        adam.step()
        fall.step()
    seen = []
    for step in (descent := tr.Descent(torch.optim.Adam([x]), 20, lr=rate)):
        seen.append((step.index, step.progress, step.last))
        step.descend(apart(x))
    torch.testing.assert_close(x, y)
    assert seen == [(i, i / 20, False) for i in range(20)]
    assert descent.taken == 20 and torch.equal(descent.best[0], x) and not descent.interrupted
    assert not descent.best[0].requires_grad and descent.best[0] is not x


def test_a_part_of_a_longer_descent_has_its_progress_and_rates() -> None:
    x = start()
    groups: list[dict[str, Any]] = [{"params": [x]}, {"params": [start()], "lr": 0.5}]
    optimiser = torch.optim.SGD(groups, lr=0.1)
    descent = tr.Descent(optimiser, 4, lr=[tr.Geometric(1.0, 0.01), None], between=(0.5, 1.0))
    found = []
    for step in descent:
        found.append((step.progress, *(group["lr"] for group in optimiser.param_groups)))
        step.descend(apart(x))
    expected = [(u, 0.01**u, 0.5) for u in (0.5, 0.625, 0.75, 0.875)]
    assert found == [pytest.approx(each) for each in expected]


def test_steps_measured_in_the_picture_are_those_of_the_progress() -> None:
    x = start()

    def corners(x: Tensor) -> Tensor:
        return x[:, None]

    before = x.detach().clone()
    lengths = []
    steps = tr.ImageSteps(torch.optim.SGD([x]), corners, tr.Geometric(0.1, 0.01))
    for step in tr.Descent(steps, 5):
        step.descend(apart(x))
        lengths.append(float((x.detach() - before).norm(dim=1).mean()))
        before = x.detach().clone()
    assert lengths == pytest.approx([0.1 * 0.1 ** (i / 5) for i in range(5)])


# What is kept -------------------------------------------------------------------------------------


def test_each_item_keeps_its_best_and_the_last_iterate_is_measured_too() -> None:
    x = start()
    iterates, measured = [], []
    descent = tr.Descent(torch.optim.SGD([x], lr=0.95), 7, best_from=0.0)  # overshoots
    for step in descent:
        # Item 0 gets worse from step 3 on, item 1 better all the time, item 2 goes up and down.
        loss = apart(x) * torch.tensor([1.0 + 10 * (step.index > 3), 1.0, 1.0], dtype=F64)
        iterates.append(x.detach().clone())
        measured.append(loss.detach())
        step.descend(loss)
    assert len(iterates) == 8 and step.last and step.progress == 1 and descent.taken == 7
    table = torch.stack(measured)
    lowest = table.argmin(0)
    assert lowest.tolist() == [3, 7, 7]
    torch.testing.assert_close(descent.losses, table.amin(0))
    expected = torch.stack([iterates[k][i] for i, k in enumerate(lowest.tolist())])
    torch.testing.assert_close(descent.best[0], expected)
    assert descent.winner == int(table.amin(0).argmin())


def test_losses_of_before_do_not_count_and_the_last_pass_moves_nothing() -> None:
    x = start()
    descent = tr.Descent(torch.optim.SGD([x], lr=0.1), 4, best_from=1.0)
    for step in descent:
        before = x.detach().clone()
        # Lower at first, as that of another softness may be; no gradient is asked for at the end.
        loss = apart(x.detach() if step.last else x) * (1e-3 if step.index < 4 else 1.0)
        step.descend(loss)
    assert torch.equal(before, x) and torch.equal(descent.best[0], x)
    torch.testing.assert_close(descent.losses, apart(x.detach()))


def test_what_items_share_is_the_latest() -> None:
    x, shared = start(), torch.zeros(3, dtype=F64, requires_grad=True)  # 3 by chance
    groups: list[dict[str, Any]] = [{"params": [x]}, {"params": [shared]}]
    sgd = torch.optim.SGD(groups, lr=0.6)
    descent = tr.Descent(sgd, 6, per_item=[True, False], best_from=0)
    for step in descent:
        step.descend(apart(x) * (1 + step.index) + shared.square().sum() + shared[0])
    assert torch.equal(descent.best[1], shared.detach())
    assert not torch.equal(descent.best[0], x.detach())


def test_of_no_steps_at_most_the_start_is_measured() -> None:
    assert list(tr.Descent(torch.optim.SGD([start()], lr=0.1), 0)) == []
    x = start()
    descent = run(tr.Descent(torch.optim.SGD([x], lr=0.1), 0, best_from=1.0), x)
    torch.testing.assert_close(descent.losses, apart(torch.zeros(3, 2, dtype=F64)))


def test_one_problem_needs_no_batch() -> None:
    x, y = start(), torch.zeros((), dtype=F64, requires_grad=True)
    descent = tr.Descent(torch.optim.SGD([x, y], lr=0.1), 30, best_from=0.0)
    for step in descent:
        step.descend(apart(x).sum() + (y - 1).square())
    assert descent.losses.ndim == 0 and descent.winner == 0
    torch.testing.assert_close(descent.best[0], GOAL, atol=1e-2, rtol=0)


# When it stops ------------------------------------------------------------------------------------


def test_items_rest_each_on_its_own_and_the_loop_ends_with_the_last() -> None:
    speed = torch.tensor([1.0, 0.3, 0.1], dtype=F64)
    rest = tr.Rest(0.05, 64, after=0.0, window=5)
    ends = []
    for items in ([0, 1, 2], [0], [2]):
        x = start(len(items))
        descent = tr.Descent(torch.optim.SGD([x], lr=0.2), 1000, rest=rest)
        for step in descent:
            loss = (x - GOAL[items]).square().sum(1) * speed[items]
            step.descend(loss, seen=x[:, None])
        assert descent.at_rest is not None and bool(descent.at_rest.all()) and descent.taken < 400
        ends.append((descent.taken, x.detach()))
    (together, x), (first, x0), (last, x2) = ends
    assert first < last == together
    torch.testing.assert_close(x[[0, 2]], torch.cat([x0, x2]), rtol=0, atol=1e-15)


def test_nothing_rests_while_a_softness_shrinks_and_going_to_and_fro_is_no_motion() -> None:
    x = start()
    geometry: Callable[[Tensor], Tensor] = lambda x: x[:, None]  # noqa: E731
    steps = tr.ImageSteps(torch.optim.SGD([x]), geometry, 0.01)  # never stands still
    descent = tr.Descent(steps, 1000, rest=tr.Rest(0.5, 64, after=0.5, window=4))
    sign = 1
    for step in descent:
        sign = -sign
        step.descend(sign * x.sum(1))
    assert descent.taken == 504


def test_ctrl_c_ends_the_loop_after_its_step(caplog) -> None:
    x = start()
    descent = tr.Descent(torch.optim.SGD([x], lr=0.1), 100)
    for step in descent:
        if step.index == 5:
            signal.raise_signal(signal.SIGINT)
        step.descend(apart(x))
    assert descent.interrupted and descent.taken == 6
    assert "interrupted after 6 of 100 steps" in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        each(descent, lambda _: list(map(signal.raise_signal, [signal.SIGINT] * 2)))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    run(descent, x)  # goes on
    assert descent.taken == 100 and not descent.interrupted


@pytest.mark.parametrize("ends", ["break", "error"])
def test_however_a_loop_ends_signals_and_screen_are_as_before(ends: str) -> None:
    x = start()
    console = Console(force_terminal=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    descent = tr.Descent(torch.optim.SGD([x], lr=0.1), 9, title="fitting", console=console)
    threads = threading.active_count()
    gc.disable()
    try:
        for step in descent:
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
            step.descend(apart(x))
            if ends == "break":
                break
            raise LookupError
    except LookupError:
        pass
    finally:
        gc.enable()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for _ in range(100):  # the bar's thread ends soon
        if threading.active_count() == threads:
            break
        time.sleep(0.05)
    assert threading.active_count() == threads
    assert run(descent, x).taken == 9
    console.file.close()


def test_handlers_of_the_program_stay_and_threads_need_none() -> None:
    own: Callable[..., None] = lambda *_: None  # noqa: E731
    before = signal.signal(signal.SIGINT, own)
    try:
        for step in tr.Descent(torch.optim.SGD([x := start()], lr=0.1), 2):
            assert signal.getsignal(signal.SIGINT) is own
            step.descend(apart(x))
    finally:
        signal.signal(signal.SIGINT, before)
    done: list[int] = []

    def fit() -> None:
        x = start()
        done.append(run(tr.Descent(torch.optim.SGD([x], lr=0.1), 3), x).taken)

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert done == [3]


# How it goes on -----------------------------------------------------------------------------------


def made(x: Tensor, kind: str, path: Path | None, resume: bool = False, **more: Any) -> tr.Descent:
    settings: dict[str, Any] = dict(best_from=0.3, checkpoint=path, resume=resume, **more)
    if kind == "in the picture":
        adam = torch.optim.Adam([x])
        rest = tr.Rest(1e-6, 64, after=0.5, window=3)
        return tr.Descent(tr.ImageSteps(adam, lambda x: x[:, None]), 20, rest=rest, **settings)
    if kind == "uniform":
        return tr.Descent(tr.UniformAdam([x]), 20, lr=tr.Geometric(0.5, 0.1), **settings)
    return tr.Descent(torch.optim.Adam([x]), 20, lr=tr.Geometric(0.5, 0.1), **settings)


@pytest.mark.parametrize("kind", ["adam", "uniform", "in the picture"])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "fit.pt"
    whole = run(made(x := start(), kind, None), x)
    for step in made(x := start(), kind, path, resume=True):  # there is none yet
        if step.index == 11:
            signal.raise_signal(signal.SIGINT)
        step.descend(apart(x))
    again = made(y := start(), kind, path, resume=True)
    assert again.taken == 12 and torch.equal(x, y)
    run(again, y)
    assert torch.equal(again.best[0], whole.best[0]) and torch.equal(again.losses, whole.losses)
    finished = made(z := start(), kind, path, resume=True)
    assert list(finished) == [] and torch.equal(finished.best[0], whole.best[0])
    assert torch.equal(z, y)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit.pt"]
    anew = made(start(), kind, path)
    assert anew.taken == 0


def test_checkpoints_are_written_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "fit.pt"
    x = start()

    def body(step: tr.Step) -> None:
        step.descend(apart(x))
        if step.index == 8:
            raise LookupError

    with pytest.raises(LookupError):
        each(made(x, "adam", path, save_every=1e-9), body)
    assert made(start(), "adam", path, resume=True).taken == 8


def test_a_checkpoint_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fit.pt"
    run(made(x := start(), "adam", path), x)
    for call, message in (
        (lambda: made(start(2), "adam", path, True), r"fit.pt is of another descent: unknowns was"),
        (lambda: made(start(), "uniform", path, True), r"optimiser was 'Adam', is 'UniformAdam'"),
        (lambda: made(start(), "in the picture", path, True), "in the picture was False"),
    ):
        with pytest.raises(ValueError, match=f"^checkpoint: .*{message}"):
            call()
    state = torch.load(path)
    del state["optimiser"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"^checkpoint: .*fit.pt is not of this descent"):
        made(start(), "adam", path, True)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r"^checkpoint: .*fit.pt is no checkpoint of a descent"):
        made(start(), "adam", path, True)
    for data in (b"", b"text", path.read_bytes()[:50]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"^checkpoint: .*fit.pt is damaged"):
            made(start(), "adam", path, True)
    with pytest.raises(FileNotFoundError, match=r"^checkpoint: no folder"):
        made(start(), "adam", tmp_path / "absent" / "fit.pt")


# The bar ------------------------------------------------------------------------------------------


def test_a_bar_shows_title_steps_loss_and_rest(capsys) -> None:
    x = start()
    rest = tr.Rest(30.0, 64, after=0.0, window=1)
    descent = tr.Descent(
        torch.optim.SGD([x], lr=0.1), 30, title="fitting", console=Console(width=100), rest=rest
    )
    for step in descent:
        step.descend(apart(x), seen=(x * torch.tensor([[1.0], [1.0], [100.0]]))[:, None])
        if step.index == 3:
            break
    said = capsys.readouterr().out
    assert "fitting" in said and "/30" in said and "2 of 3 at rest" in said
    run(tr.Descent(torch.optim.SGD([x], lr=0.1), 3), x)
    assert capsys.readouterr().out == ""


# Errors -------------------------------------------------------------------------------------------


def test_what_is_not_finite_is_named_and_moves_nothing() -> None:
    x = start()
    descent = tr.Descent(torch.optim.SGD([x], lr=0.1), 50)

    def bad_loss(step: tr.Step) -> None:
        step.descend(apart(x) * torch.tensor([1.0, 1.0 if step.index < 12 else torch.nan, 1.0]))

    def bad_slope(step: tr.Step) -> None:
        chosen = torch.tensor([[0.0], [1.0], [0.0]])
        step.descend(apart(x) + (x * chosen).square().sum(1).sqrt())

    loss = r"^the loss is not finite at step 12 \(progress 0.24\), in item 1$"
    with pytest.raises(FloatingPointError, match=loss):
        each(descent, bad_loss)
    assert torch.equal(descent.best[0], x)
    before = x.detach().clone()
    slope = r"^the gradient of parameter 0 is not finite at step 12 .* item 0, 2$"
    with pytest.raises(FloatingPointError, match=slope):
        each(descent, bad_slope)
    assert torch.equal(before, x)
    with pytest.raises(FloatingPointError, match=r"^the loss .* step 0 \(progress 0\)$"):
        run(tr.Descent(torch.optim.SGD([x], lr=0.1), 5), x, lambda x: x.sum() / 0)


X = start()
SGD = torch.optim.SGD([X], lr=0.1)
BAD: Any = {"text": "many", "module": torch.nn.Linear(1, 1)}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tr.Descent(BAD["module"], 5), TypeError, "^optimiser: expected a Optimizer or"),
        (lambda: tr.Descent(torch.optim.LBFGS([X]), 5), TypeError, "^optimiser: LBFGS"),
        (lambda: tr.Descent(SGD, -1), ValueError, "^steps: "),
        (lambda: tr.Descent(SGD, 5, lr=-0.1), ValueError, "^lr: "),
        (lambda: tr.Descent(SGD, 5, lr=[0.1, 0.2]), ValueError, "^lr: expected one for each of 1"),
        (lambda: tr.Descent(SGD, 5, per_item=BAD["text"]), TypeError, "^per_item: "),
        (lambda: tr.Descent(SGD, 5, between=(0.5, 0.5)), ValueError, "^between: "),
        (lambda: tr.Descent(SGD, 5, best_from=2.0), ValueError, "^best_from: "),
        (lambda: tr.Descent(SGD, 5, rest=BAD["text"]), TypeError, "^rest: "),
        (lambda: tr.Descent(SGD, 5, resume=True), ValueError, "^resume: needs a checkpoint"),
        (lambda: tr.Descent(SGD, 5, checkpoint="/"), ValueError, "^checkpoint: .*is a folder"),
        (lambda: tr.Descent(SGD, 5).save(), ValueError, "^checkpoint: "),
        (lambda: tr.Descent(SGD, 5).losses, ValueError, "^losses: "),
        (
            lambda: tr.Descent(tr.ImageSteps(SGD, lambda x: x[:, None]), 5, lr=0.1),
            ValueError,
            "^lr: has no effect on ImageSteps",
        ),
        (lambda: tr.Rest(0.0, 64, 0.0), ValueError, "^pixels: "),
        (lambda: tr.Rest(0.1, 0, 0.0), ValueError, "^image_size: "),
        (lambda: tr.Rest(0.1, 64, 1.5), ValueError, "^after: "),
        (lambda: tr.Rest(0.1, 64, 0.0, 0), ValueError, "^window: "),
    ],
)
def test_bad_arguments_are_refused_by_name(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (lambda step: None, ValueError, "^step 0: the loop's body did not call descend"),
        (lambda step: [step.descend(apart(X)) for _ in "ab"], ValueError, "^descend: .*twice"),
        (lambda step: step.descend(1.0), TypeError, "^loss: expected a torch.Tensor"),
        (lambda step: step.descend(X), ValueError, r"^loss: must be 0-d or \(B,\)"),
        (lambda step: step.descend(X[:, 0].repeat(2)), ValueError, "^loss: is of 6 items, but"),
        (lambda step: step.descend(GOAL[:, 0]), ValueError, "^loss: does not depend"),
        (lambda step: step.descend((start() + 1)[:, 0]), ValueError, "optimiser's parameters"),
        (
            lambda step: step.descend(X[:, 0] if step.index else X.sum()),
            ValueError,
            r"^loss: was \(\) before",
        ),
    ],
)
def test_a_body_that_cannot_be_right_is_refused(body, error, message) -> None:
    X.grad = None
    with pytest.raises(error, match=message):
        each(tr.Descent(SGD, 3), body)


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (None, "^seen: give descend the corners"),
        (torch.zeros(4, 2), "^seen: 4 rows are not a multiple of 3"),
        (torch.zeros(3, 5), r"^seen: must be \(R, ..., 3\)"),
    ],
)
def test_corners_that_cannot_be_right_are_refused(seen, message) -> None:
    with pytest.raises(ValueError, match=message):
        each(
            tr.Descent(SGD, 3, rest=tr.Rest(0.1, 64, 0.0)),
            lambda step: step.descend(apart(X), seen),
        )
