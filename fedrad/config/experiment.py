"""What a researcher writes: frozen and checked."""

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from math import prod
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from fedrad.config.checking import checked, merge_changes
from fedrad.config.names import ArmName, RuleName, SiteName
from fedrad.errors import ConfigError
from fedrad.registry import nearest

__all__ = ["POOLED", "Experiment", "Local", "Primary", "Split", "Task"]

Spec = str | dict[str, Any]
V = TypeVar("V", int, str)
_MOST_INPUT = 1_000_000_000
POOLED = "pooled"
"""The name under which all training sites together appear; no site may bear it."""


class Frozen(BaseModel):
    """Base of what YAML is read into: no unknown keys, no change afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Task(Frozen):
    """What a model is to learn, and the shape of what it sees.

    Args:
        name: binary (one finding), multiclass (one of several), multilabel (each by itself).
        labels: names of the findings, or of the classes in order.
        input: (c, h, w) of an image, or (f,) of a table's row.

    >>> Task(name="binary", labels=("pneumonia",), input=(1, 64, 64)).outputs
    1
    """

    name: Literal["binary", "multiclass", "multilabel"]
    labels: tuple[str, ...] = Field(min_length=1)
    input: tuple[Annotated[int, Field(gt=0)], ...] = Field(min_length=1, max_length=3)

    @property
    def outputs(self) -> int:
        """Return the number of logits: one a finding, or one a class."""
        return len(self.labels)

    @property
    def columns(self) -> int:
        """Return the columns of y: one a finding; the index of the class is one column."""
        return 1 if self.name == "multiclass" else len(self.labels)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: one name stands twice")
        if self.name == "binary" and len(self.labels) != 1:
            raise ValueError(f"labels: a binary task has one finding, found {len(self.labels)}")
        if self.name == "multiclass" and len(self.labels) < 2:
            raise ValueError("labels: a multiclass task has two classes or more")
        if len(self.input) == 2:
            raise ValueError("input: needs [channels, height, width] or [features]")
        if prod(self.input) > _MOST_INPUT:
            raise ValueError(
                f"input: has {prod(self.input):,} numbers; {_MOST_INPUT:,} are the most, since a "
                "batch of images is held in memory"
            )
        return self


class Local(Frozen):
    """What a site does in one round.

    Exactly one of `epochs` and `steps` is set. Class weights balance the loss: `site` from the
    site's own counts, `global` from counts added over all training sites.

    `precision: bfloat16` computes the forward pass of training by torch's autocast; weights,
    losses, evaluation and what travels stay float32. `channels_last` lays images and kernels out
    with their channels innermost. Both change results within rounding, so they are said here,
    where every machine reads them, and no machine chooses for itself.
    """

    epochs: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    steps: Annotated[int, Field(gt=0, le=1_000_000_000)] | None = None
    batch: int = Field(default=32, gt=0, le=1_000_000)
    optimizer: Spec = Field(default_factory=lambda: {"name": "sgd", "lr": 0.05})
    clip: Annotated[float, Field(gt=0)] | None = None
    augment: tuple[Spec, ...] = ()
    class_weights: Literal["none", "site", "global"] = "none"
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("set one of epochs and steps")
        return self


class Split(Frozen):
    """How to split data that come without a split: shares of the patients of each site."""

    val: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.25, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_some(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}; nothing is left to train on")
        return self


class Primary(Frozen):
    """The one comparison that was declared before the results were seen."""

    arm: str
    against: str = "local"
    metric: str = "auroc"


_MOST = {
    "rounds": (1_000_000, "each writes a line and a state to the disk"),
    "seeds": (1_000, "each is a training of every arm, with a folder of its own"),
    "arms": (1_000, "each is a training, with a folder of its own"),
}
"""Key of an experiment -> how many there may be, and why not more."""

ARM_KEYS = ("algorithm", "local", "model", "privacy", "wrap")
"""What an arm may say differently. Rounds, seeds and data are common to all arms."""


class Experiment(Frozen):
    """One question: data, model, budget, and the arms that are compared under it.

    `accept` names rules of `data.checks.oddities` that are not told again; it silences no error.

    >>> from fedrad.config import from_text
    >>> experiment = from_text('''
    ... name: tiny
    ... task: {name: binary, labels: [lesion], input: [1, 32, 32]}
    ... data: {name: phantom}
    ... model: cnn
    ... local: {steps: 4}
    ... rounds: 2
    ... arms: {fedavg: {algorithm: fedavg}, fedprox: {algorithm: {name: fedprox, mu: 0.1}}}
    ... primary: {arm: fedprox, against: fedavg}
    ... ''')
    >>> experiment.arm("fedprox").algorithm
    {'name': 'fedprox', 'mu': 0.1}
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
    task: Task
    data: Spec | None = None
    sites: tuple[str, ...] = ()
    partition: Spec | None = None
    split: Split | None = None
    held_out_sites: tuple[SiteName, ...] = ()
    shared_patients: bool = False
    accept: tuple[RuleName, ...] = ()
    model: Spec
    local: Local
    algorithm: Spec | None = None
    wrap: tuple[Spec, ...] = ()
    privacy: Spec | None = None
    arms: dict[ArmName, dict[str, Any]] = Field(default_factory=dict)
    rounds: int = Field(gt=0)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    sites_per_round: Annotated[int, Field(gt=0)] | None = None
    validate_every: int = Field(default=1, ge=0)
    metrics: tuple[Spec, ...] = ("auroc", "balanced_accuracy", "brier", "loss")
    primary: Primary | None = None
    replicates: int = Field(default=1000, ge=0, le=10_000)
    quorum: Annotated[int, Field(gt=0)] | None = None
    deadline: float = Field(default=3600.0, gt=0, description="seconds for one round")

    @field_validator("rounds", "seeds", "arms")
    @classmethod
    def _can_be_recorded(cls, value: Any, info: ValidationInfo) -> Any:
        count = value if isinstance(value, int) else len(value)
        most, why = _MOST[info.field_name or ""]
        if count > most:
            raise ValueError(f"found {count:,}; {most:,} are the most, since {why}")
        return value

    @field_validator("replicates")
    @classmethod
    def _replicates_suffice(cls, replicates: int) -> int:
        if 0 < replicates < 100:
            raise ValueError("0 for no intervals, else at least 100: fewer cannot bound 95 %")
        return replicates

    @field_validator("metrics", "wrap")
    @classmethod
    def _specs_differ(cls, specs: tuple[Spec, ...], info: ValidationInfo) -> tuple[Spec, ...]:
        if info.field_name == "metrics" and not specs:
            raise ValueError("needs one metric or more, such as [auroc]")
        twice = _twice(_name(spec) for spec in specs)
        if twice is not None:
            kind = "metric" if info.field_name == "metrics" else "wrapper"
            raise ValueError(f"{kind} {twice} stands twice")
        return specs

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("needs one seed or more, such as [0]")
        twice = _twice(seeds)
        if twice is not None:
            raise ValueError(f"seed {twice} stands twice; a repeat would count as new evidence")
        return seeds

    @field_validator("held_out_sites")
    @classmethod
    def _held_out_differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = _twice(names)
        if twice is not None:
            raise ValueError(f"site '{twice}' stands twice")
        return names

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.data and self.sites:
            raise ValueError("set one of data (an adapter) and sites (a list of site files)")
        if self.partition and not (self.data or self.sites):
            raise ValueError("partition: deals out one source, and data names none")
        if self.sites and self.partition:
            raise ValueError("partition: deals out one source (data); sites have their own data")
        if self.quorum and self.sites_per_round and self.quorum > self.sites_per_round:
            raise ValueError(
                f"quorum: {self.quorum} of the {self.sites_per_round} sites_per_round cannot answer"
            )
        return self._arms_fit()

    def _arms_fit(self) -> Self:
        if not self.arms and self.algorithm is None:
            raise ValueError("needs arms, or an algorithm")
        for name, arm in self.arms.items():
            for key in arm:
                if key not in ARM_KEYS:
                    hint = nearest(key, ARM_KEYS)
                    raise ValueError(
                        f"arms.{name}.{key}: an arm may change {', '.join(ARM_KEYS)}{hint}"
                    )
            if not isinstance(arm.get("local", {}), dict):
                raise ValueError(
                    f"arms.{name}.local: needs keys and values, such as {{epochs: 1}}, "
                    f"found {type(arm['local']).__name__}"
                )
            if arm.get("privacy", "none") is None:
                # The canonical text leaves null out, and the arm would get the base's.
                raise ValueError(f"arms.{name}.privacy: say none for an arm without it")
            if self.algorithm is None and "algorithm" not in arm:
                raise ValueError(f"arms.{name}: names no algorithm, and the base has none")
        return self._primary_fits()

    def _primary_fits(self) -> Self:
        if self.primary is None and len(self.arm_names) > 1:
            raise ValueError(
                "primary: declare one comparison before the results are seen, "
                "such as {arm: fedavg, against: local, metric: auroc}"
            )
        if self.primary is None:
            return self
        for role, arm in (("arm", self.primary.arm), ("against", self.primary.against)):
            if arm not in self.arm_names:
                known = ", ".join(self.arm_names)
                raise ValueError(f"primary.{role}: '{arm}' is not one of the arms {known}")
        if self.primary.metric not in self.metric_names:
            known = ", ".join(self.metric_names)
            raise ValueError(f"primary.metric: '{self.primary.metric}' is not one of {known}")
        return self

    @property
    def arm_names(self) -> tuple[str, ...]:
        """Return the arms' names in the order of the file."""
        return tuple(self.arms) or (_name(self.algorithm or ""),)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Return the metrics' names in the order of the file."""
        return tuple(_name(metric) for metric in self.metrics)

    def arm(self, name: str) -> "Experiment":
        """Return the experiment as one arm sees it: the base with what the arm changes.

        Raises:
            ConfigError: there is no such arm, or what it changes does not fit.
        """
        if name not in self.arm_names:
            known = ", ".join(self.arm_names)
            raise ConfigError(f"arm '{name}' is not one of {known}{nearest(name, self.arm_names)}")
        base = self.model_dump(exclude={"arms", "seeds", "primary", "accept"})
        base["algorithm"] = self.algorithm or self.arms[name]["algorithm"]
        # An arm's own budget replaces the base's: `steps` and `epochs` exclude each other.
        change = self.arms.get(name, {})
        if {"steps", "epochs"} & (change.get("local") or {}).keys():
            base["local"] |= {"steps": None, "epochs": None}
        return checked(Experiment, merge_changes(base, change), where=f"arms.{name}")

    def text(self) -> str:
        """Return the canonical text: equal for equal experiments, and `from_text` reads it."""
        values = self.model_dump(mode="json", exclude_none=True, exclude={"accept"})
        values |= {"accept": list(self.accept)} if self.accept else {}
        return yaml.safe_dump(values, sort_keys=True, width=100)

    def digest(self) -> str:
        """Return the SHA-256 of the canonical text."""
        return sha256(self.text().encode()).hexdigest()


def _twice(values: Iterable[V]) -> V | None:
    counts = Counter(values)
    return min((value for value, number in counts.items() if number > 1), default=None)


def _name(spec: Spec) -> str:
    return spec if isinstance(spec, str) else str(spec.get("name", ""))
