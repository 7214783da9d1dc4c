"""Meta-learning for inverse rendering: an inner loop solves tasks, an outer loop improves it.

A `Method` (renderer, update rule, learning-rate schedule, steps) solves a `TaskBatch` by `unroll`.
An estimator gives the gradient of an `OuterLoss` with respect to the method's learnable parameters,
and an `OuterTrainer` descends it. `evaluate` and `compare` measure the result against the fixed
softnesses that a `BaselineTuner` finds. A `Study` does all of this for one family of tasks. Any
class that meets `TaskFamily` is such a family.
"""

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
from meta.evaluation.evaluate import Convergence, Evaluation, convergence, evaluate
from meta.evaluation.stats import (
    Comparison,
    Summary,
    compare,
    markdown_table,
    rich_table,
    summarise,
)
from meta.inner.method import Method
from meta.inner.mixture import Mixture, MixtureBatch, Part
from meta.inner.policy_method import PolicyMethod, softening_method
from meta.inner.protocol import (
    MeasuredBatch,
    OutlinedBatch,
    StudyBatch,
    StudyFamily,
    TaskBatch,
    TaskFamily,
)
from meta.inner.unroll import InnerRun, batch_parameters, trajectory, unroll
from meta.inner.updates import SGD, Adam, ImageSteps, Momentum, UpdateRule
from meta.outer.checkpoint import CheckpointError
from meta.outer.distributed import WorkerLost, World, join
from meta.outer.estimator import Estimator, OuterGradient, Shard, estimator
from meta.outer.loss import OuterLoss
from meta.outer.settings import TrainerSettings
from meta.outer.state import TrainingResult
from meta.outer.trainer import OuterTrainer
from meta.search.fixed import FixedSoftness, Grid, fixed_method
from meta.search.learnable import Learnable, learnable_method, learnable_schedules, learnable_shape
from meta.search.tuner import BaselineTuner, Rung
from meta.study.plan import Problem, Study, Training
from meta.study.study import StudyRun

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
    "ImageSteps",
    "InnerRun",
    "Learnable",
    "MeasuredBatch",
    "Method",
    "Mixture",
    "MixtureBatch",
    "Momentum",
    "OnlineRun",
    "OuterGradient",
    "OuterLoss",
    "OuterTrainer",
    "OutlinedBatch",
    "Part",
    "PolicyMethod",
    "Problem",
    "Rung",
    "Shard",
    "Study",
    "StudyBatch",
    "StudyFamily",
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
    "softening_method",
    "summarise",
    "trajectory",
    "truncated_gradient",
    "unroll",
]
