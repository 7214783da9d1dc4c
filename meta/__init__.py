"""Meta-learning for inverse rendering: an inner loop solves tasks, an outer loop improves it.

A `Method` (renderer, update rule, learning-rate schedule, steps) solves a `TaskBatch` by `unroll`.
An estimator gives the gradient of an `OuterLoss` with respect to all that is learnable about the
method, and an `OuterTrainer` follows it. `evaluate` and `compare` tell what came of it, beside the
fixed softnesses that a `BaselineTuner` finds. Tasks are anything that meets `TaskFamily`.
"""

from meta.baselines import BaselineTuner, FixedSoftness, Grid, Rung, fixed_method
from meta.checkpoint import CheckpointError
from meta.distributed import Shard, WorkerLost, World, join
from meta.estimators import (
    ESTIMATORS,
    OnlineRun,
    es_gradient,
    exact_gradient,
    first_order_gradient,
    learn_online,
    online_gradient,
    pes_gradient,
    truncated_gradient,
)
from meta.evaluate import Convergence, Evaluation, convergence, evaluate
from meta.method import Method
from meta.outer import Estimator, OuterGradient, OuterLoss, estimator
from meta.protocol import TaskBatch, TaskFamily
from meta.starts import Learnable, learnable_method, learnable_schedules, learnable_shape
from meta.stats import Comparison, Summary, compare, markdown_table, rich_table, summarise
from meta.study import Problem, Study, StudyRun, Training
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
    "Learnable",
    "Method",
    "Momentum",
    "OnlineRun",
    "OuterGradient",
    "OuterLoss",
    "OuterTrainer",
    "Problem",
    "Rung",
    "Shard",
    "Study",
    "StudyRun",
    "Summary",
    "TaskBatch",
    "TaskFamily",
    "TrainerSettings",
    "Training",
    "TrainingResult",
    "UpdateRule",
    "WorkerLost",
    "World",
    "batch_parameters",
    "compare",
    "convergence",
    "es_gradient",
    "estimator",
    "evaluate",
    "exact_gradient",
    "first_order_gradient",
    "fixed_method",
    "join",
    "learn_online",
    "learnable_method",
    "learnable_schedules",
    "learnable_shape",
    "markdown_table",
    "online_gradient",
    "pes_gradient",
    "rich_table",
    "summarise",
    "trajectory",
    "truncated_gradient",
    "unroll",
]
