"""Evaluation judges the end of each inner run, one or many methods at a time."""

import numpy as np
import pytest
import torch

from meta.evaluation.evaluate import batches, candidate_errors, convergence, evaluate
from meta.inner.method import Method
from meta.inner.unroll import unroll
from meta.inner.updates import Adam
from toy_tasks import Rate, ToyFamily, ToyRenderer

pytestmark = pytest.mark.runs_on(arch="cpu", precision="f64")

RNG = np.random.default_rng(0)


def toy_method(**renderer):
    return Method(ToyRenderer(**renderer), Adam(), Rate(), 6)


def test_evaluation_is_the_end_of_each_inner_run():
    family, method = ToyFamily(), toy_method()
    counted: list[int] = []
    result = evaluate(method, family, 10, batch_size=4, done=counted.append)
    assert counted == [4, 4, 2] and result.errors.shape == (10,)
    begin = 0
    for task in batches(family, 10, "test", 4):
        part = slice(begin, begin + task.batch_size)
        ends = unroll(method, task).params
        np.testing.assert_array_equal(result.errors[part], task.true_error(ends))
        np.testing.assert_array_equal(result.start_errors[part], task.true_error(task.start()))
        np.testing.assert_array_equal(result.metrics["image_error"][part], task.image_error(ends))
        begin += task.batch_size


def test_convergence_begins_and_ends_where_the_evaluation_does():
    family, method = ToyFamily(), toy_method()
    result = evaluate(method, family, 6, batch_size=4)
    path = convergence(method, family, 6, batch_size=4)
    assert path.parameter_error.shape == path.image_error.shape == (7, 6)
    np.testing.assert_array_equal(path.parameter_error[0], result.start_errors)
    np.testing.assert_array_equal(path.parameter_error[-1], result.errors)
    np.testing.assert_array_equal(path.image_error[-1], result.metrics["image_error"])


@pytest.mark.parametrize("max_batch", [1, 12, 100])
def test_candidates_solved_together_equal_methods_solved_alone(max_batch):
    task = ToyFamily().sample(5, "tune", 2)
    methods = [toy_method(log_scale=s) for s in (-1.0, 0.0, 1.0)]
    errors = candidate_errors(methods[0], [m.parameter_dict() for m in methods], task, max_batch)
    for row, method in zip(errors, methods, strict=True):
        np.testing.assert_array_equal(row, task.true_error(unroll(method, task).params))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: evaluate(toy_method(), ToyFamily(), 0), "count"),
        (lambda: evaluate(toy_method(), ToyFamily(), 4, batch_size=0), "batch_size"),
        (lambda: candidate_errors(toy_method(), [], ToyFamily().sample(2, "tune", 0)), "candid"),
        (
            lambda: candidate_errors(
                toy_method(),
                [{"lr.log_rate": torch.zeros(())}],
                ToyFamily().sample(2, "tune", 0),
                0,
            ),
            "max_batch",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, named):
    with pytest.raises(ValueError, match=named):
        call()
