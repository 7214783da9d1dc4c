"""Meta-learning for inverse rendering: an inner loop solves tasks, an outer loop improves it.

A `Method` (renderer, update rule, learning-rate schedule, steps) solves a `TaskBatch` by `unroll`.
An estimator gives the gradient of an `OuterLoss` with respect to all that is learnable about the
method, and an `OuterTrainer` follows it. `evaluate` and `compare` tell what came of it, beside the
fixed softnesses that a `BaselineTuner` finds. Tasks are anything that meets `TaskFamily`.
"""

from meta.baselines import BaselineTuner, FixedSoftness, Grid, Rung, fixed_method
from meta.checkpoint import CheckpointError
from meta.estimators import ESTIMATORS, es_gradient, exact_gradient, first_order_gradient
from meta.evaluate import Convergence, Evaluation, convergence, evaluate
from meta.method import Method
from meta.outer import Estimator, OuterGradient, OuterLoss, estimator
from meta.protocol import TaskBatch, TaskFamily
from meta.starts import learnable_schedules, learnable_shape
from meta.stats import Comparison, Summary, compare, markdown_table, rich_table, summarise
from meta.trainer import OuterTrainer
from meta.training import TrainerSettings, TrainingResult
from meta.unroll import InnerRun, batch_parameters, trajectory, unroll
from meta.updates import SGD, Adam, Momentum, UpdateRule

__all__ = [
    "ESTIMATORS",
    "SGD",
    "Adam",
    "BaselineTuner",
    "CheckpointError",
    "Comparison",
    "Convergence",
    "Estimator",
    "Evaluation",
    "FixedSoftness",
    "Grid",
    "InnerRun",
    "Method",
    "Momentum",
    "OuterGradient",
    "OuterLoss",
    "OuterTrainer",
    "Rung",
    "Summary",
    "TaskBatch",
    "TaskFamily",
    "TrainerSettings",
    "TrainingResult",
    "UpdateRule",
    "batch_parameters",
    "compare",
    "convergence",
    "es_gradient",
    "estimator",
    "evaluate",
    "exact_gradient",
    "first_order_gradient",
    "fixed_method",
    "learnable_schedules",
    "learnable_shape",
    "markdown_table",
    "rich_table",
    "summarise",
    "trajectory",
    "unroll",
]
