"""What to run, complete: data, model, method and its readings, optimiser, schedule, seed.

A recipe is frozen and typed; unknown fields are refused. ``[S]`` and a number mark the fields that choose a
reading where the GKP+GSA paper (Chen et al., CVPR 2026) is open; ``docs/readings.md`` explains each of them.
"""

from __future__ import annotations

import importlib.resources
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import tomli_w

from landscape_lab.errors import InputError, nearest
from landscape_lab.files import write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "METHODS",
    "DataRecipe",
    "EvaluationRecipe",
    "GkpRecipe",
    "GroupsRecipe",
    "GsaRecipe",
    "LossRecipe",
    "Method",
    "ModelRecipe",
    "QualityRecipe",
    "Recipe",
    "SamRecipe",
    "TrainingRecipe",
    "differences",
    "load_recipe",
    "parse_assignment",
    "preset_names",
    "read_recipe",
    "recipe_names",
    "rescaled",
    "write_recipe",
]

Method = Literal["erm", "sam", "gsa", "gsa-proj", "gkp", "gkp-sam", "gkp-gsa", "gkp-gsa-proj"]
METHODS: tuple[str, ...] = get_args(Method)

Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Natural = Annotated[int, msgspec.Meta(ge=0)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class DataRecipe(_Table, frozen=True):
    """The images, and how long their tail is."""

    name: str
    """``digits-lt``, ``cifar10-lt``, ``cifar100-lt`` or ``folder``."""
    root: str | None = None
    """Folder of the files; not needed by the digits."""
    imbalance_ratio: Annotated[float, msgspec.Meta(ge=1)] | Literal["natural"] = 100.0
    """Largest over smallest class count; ``natural`` takes the data as they lie."""
    subset_seed: Natural = 0
    """Seed of the legacy shuffle that picks each class's images."""
    image_size: Count | None = None
    """Side to which the images of a folder are resized, in pixels."""
    classes: Literal["all", "head", "tail"] = "all"
    """Train on these classes alone; the test set and the classifier keep all."""
    crop_padding: Natural = 4
    """Zero pixels added on each side before a random crop; 0: no crop."""
    flip: bool = True
    """Flip half of the training images left to right."""
    autoaugment: bool = False
    """[S] 42: apply the CIFAR-10 policy of AutoAugment (Cubuk et al., CVPR 2019) to the classified view."""
    cutout: Natural = 0
    """Side of the square that is blacked out in the classified view (DeVries and Taylor 2017); 0: none."""


class ModelRecipe(_Table, frozen=True):
    """A CIFAR ResNet and its classifier."""

    depth: Count = 32
    width: Count = 16
    classifier: Literal["linear", "cosine"] = "linear"
    cosine_scale: Positive = 30.0
    projection: bool = False
    """Add BCL's two projection heads, for features and for class prototypes."""
    projection_hidden: Count = 512
    projection_dim: Count = 128

    def __post_init__(self) -> None:
        if self.depth < 8 or (self.depth - 2) % 6:
            raise ValueError(f"depth must be 6 n + 2 (8, 14, 20, 32, 44, 56, 110), got {self.depth}")


class TrainingRecipe(_Table, frozen=True):
    """SGD and its schedule. Epochs count from 0."""

    epochs: Count = 200
    batch_size: Count = 128
    drop_last: bool = False
    learning_rate: Positive = 0.1
    momentum: Share = 0.9
    weight_decay: NonNegative = 2e-4
    nesterov: bool = False
    warmup_epochs: Natural = 5
    """Linear warm-up: epoch e < warmup_epochs runs at (e + 1) / warmup_epochs of the learning rate."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[Natural, ...] = (160, 180)
    decay: Positive = 0.01
    """Factor at each milestone (LDAM's recipe: 0.01, then 0.0001)."""
    channels_last: bool = True
    """Memory layout of images and activations; faster, and rounds differently."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of the passes; sums, the optimiser and the perturbations stay in float32."""
    checkpoint_every: Count = 10
    """Epochs between saved checkpoints; the initialisation and the last epoch are always saved."""

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must increase, got {list(self.milestones)}")


class LossRecipe(_Table, frozen=True):
    """The base loss: cross-entropy, or BCL (Zhu et al., CVPR 2022), which adds contrast between views."""

    name: Literal["cross-entropy", "bcl"] = "cross-entropy"
    logit_adjustment: NonNegative = 0.0
    """τ: the logits of the training loss are raised by τ log π, π the classes' shares (Menon et al. 2021)."""
    classification_weight: NonNegative = 2.0
    """BCL: weight of the cross-entropy of the classified view."""
    contrast_weight: NonNegative = 0.6
    """BCL: weight of the balanced contrastive loss of the other two views."""
    temperature: Positive = 0.1
    contrast_views: Literal["simaugment", "crop-flip"] = "simaugment"
    """BCL: what makes the other two views: resized crop, flip, colour jitter and greyscale; or crop and flip."""
    blur: bool = False
    """Blur half of the ``simaugment`` views; implementations of BCL on CIFAR differ in this."""


class SamRecipe(_Table, frozen=True):
    """Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412)."""

    rho: Positive = 0.1
    adaptive: bool = False
    """Scale the perturbation by |θ| (ASAM, Kwon et al. 2021)."""


class GroupsRecipe(_Table, frozen=True):
    """How classes are put into groups (paper, section 4.2.1)."""

    count: Count = 4
    """G."""
    source: Literal["ncut", "random", "frequency"] = "ncut"
    """Eq. 2, or groups of equal sizes at random or by class frequency (ablations, #45)."""
    affinity: Literal["cosine", "centred-cosine", "rbf"] = "cosine"
    """[S] 12: similarity of two classes' encoder parameters."""
    start_epoch: Natural = 5
    """[S] 9, 10: epochs of plain training before the first grouping, W."""
    period: Count = 10
    """[S] 9: epochs between two groupings."""
    size: Literal["samples", "classes"] = "samples"
    """[S] 1: what |G_g| counts in Eq. 6, 13 and 15."""
    statistics: bool = False
    """[S] 4: BatchNorm's running statistics count in the affinity, too (released code)."""
    bank_mebibytes: Natural = 128
    """Memory for the bank's encoders, in MiB; those beyond it are read from the run's files when needed."""


class GsaRecipe(_Table, frozen=True):
    """Grouped Sharpness Aware (paper, section 4.3, Eq. 11 to 15)."""

    global_gradient: Literal["project-batch", "project-ema", "subtract-ema", "accumulated-ema"] = "project-batch"
    """[S] 21: what Eq. 12 removes: the projection on the batch's gradient, on its moving average, or the moving
    average itself (F-SAM). ``accumulated-ema`` is the released code: each group in turn subtracts its own average
    from one gradient, the sum over groups, that the groups before it have changed."""
    ema_decay: Share = 0.9
    radius_scale: Positive = 1e-2
    """[S] 27: Z, with which ρ* of Eq. 13 is multiplied in Eq. 14."""
    rho_min: NonNegative = 0.0
    """[S] 23, 27: smallest and largest Z ρ*. Eq. 13 grows without limit as a group's gradient
    vanishes (on digits-lt ‖ε‖ reached 5.8 and more); 0.003 is the released code's bound.
    ``rho_max = inf``: no bound."""
    rho_max: Positive = 3e-3
    perturb: Literal["all", "encoder", "classifier"] = "all"
    """[S] 29: the parameters that are perturbed."""
    adaptive: bool = False
    """[S] 30: scale the perturbation by |θ|, as ASAM does."""
    weight: Literal["share", "one"] = "share"
    """[S] 19, 20: weight of a group's mean loss: n_g / B, or 1."""
    regulariser: Literal["none", "constant-rho"] = "none"
    """[S] 25: the second term of Eq. 15."""
    contrast: Literal["anchors", "within-group"] = "anchors"
    """[S] 33: BCL's contrast in a group's ascent: the group's anchors against the whole batch, so that groups
    add up to BCL; or against the group and the prototypes alone (released code)."""
    passes: Literal["exact", "merged", "stochastic"] = "exact"
    """[S] 35: a perturbed pass for each group; one for the weighted sum of their perturbations; or one for a
    group drawn at random, corrected so that the mean over draws is ``exact``."""
    every: Count = 1
    """Perturb at every k-th step only."""
    between: Literal["plain", "reuse", "hold"] = "plain"
    """At the other steps: the plain gradient; that and the last difference of a perturbed gradient to it; or, with
    ``merged``, the gradient at the last perturbation."""
    ascent_views: Literal["all", "first"] = "all"
    """BCL: the views from which the groups' gradients of Eq. 11 are taken; ``first``: the classified one."""

    def __post_init__(self) -> None:
        if self.rho_max < self.rho_min:
            raise ValueError(f"rho_max must be at least rho_min, got {self.rho_max} < {self.rho_min}")
        if self.passes == "stochastic" and self.global_gradient == "accumulated-ema":
            raise ValueError("passes = 'stochastic' draws one group, global_gradient = 'accumulated-ema' needs all")
        if self.between == "hold" and self.passes != "merged":
            raise ValueError(f"between = 'hold' holds the one perturbation of passes = 'merged', got {self.passes!r}")
        if self.passes == "stochastic" and self.ascent_views == "first":
            raise ValueError("passes = 'stochastic' needs all views' gradients: ascent_views = 'first' saves nothing")


class GkpRecipe(_Table, frozen=True):
    """Grouped Knowledge Preservation (paper, section 4.2.2, Eq. 1 to 6, 20)."""

    strength: NonNegative = 100.0
    """λ of Eq. 6."""
    alpha_max: Share = 0.95
    """[S] 37: α at the start and at the end of Eq. 20."""
    alpha_min: Share = 0.6
    parameters: Literal["encoder", "all-but-classifier", "all"] = "encoder"
    """[S] 4: what the memory bank stores and the penalty holds; released code: all but the classifier."""
    weight: Literal["one", "share"] = "one"
    """Weight of L_gkp^g in Eq. 16: 1 as printed, or the group's share of the training set."""
    max_step: Positive = 1.0
    """Bound on η (1 - α) a_i, a_i the penalty's curvature along parameter i: a plain step reaches at most the
    anchor. Explicit steps with momentum β diverge beyond 2 (1 + β). ``inf``: no bound, as printed."""
    fisher: Literal["empirical", "true", "batch-mean"] = "empirical"
    """[S] 16: per-sample gradients of the label, of a label drawn from the model, or the square of a
    batch's mean gradient."""
    fisher_normalised: bool = False
    """[S] 18: scale each group's Fisher diagonal to mean 1."""
    fisher_samples: Count | None = None
    """At most so many training samples a group; unset: all."""

    def __post_init__(self) -> None:
        if self.alpha_min > self.alpha_max:
            raise ValueError(f"alpha_max must be at least alpha_min, got {self.alpha_max} < {self.alpha_min}")


class QualityRecipe(_Table, frozen=True):
    """Feature quality Q (supplement, Eq. 17 to 19)."""

    form: Literal["difference", "reciprocal"] = "difference"
    """[S] 7: Dis - β log Var (Eq. 19), or -1/Dis - β log Var (released code)."""
    beta: NonNegative = 0.5
    split: Literal["train", "test"] = "train"
    """[S] 5: the images whose features are judged; ``test`` leaks, and is what the released code does."""
    features: Literal["raw", "normalised"] = "raw"
    """[S] 6: the encoder's output, or that divided by its norm."""


class EvaluationRecipe(_Table, frozen=True):
    """What counts as head and tail, and how evaluation is batched."""

    validation_share: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of each class's training images held out to choose the best epoch; 0: none, the last epoch counts."""
    head_tail_fraction: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.2
    """Head: this share of the classes, those with most training images; tail: those with fewest."""
    batch_size: Count = 512


class Recipe(_Table, frozen=True):
    """Everything that decides a run, apart from the device."""

    data: DataRecipe
    method: Method = "erm"
    seed: Natural = 0
    model: ModelRecipe = ModelRecipe()
    loss: LossRecipe = LossRecipe()
    training: TrainingRecipe = TrainingRecipe()
    sam: SamRecipe = SamRecipe()
    groups: GroupsRecipe = GroupsRecipe()
    gsa: GsaRecipe = GsaRecipe()
    gkp: GkpRecipe = GkpRecipe()
    quality: QualityRecipe = QualityRecipe()
    evaluation: EvaluationRecipe = EvaluationRecipe()

    def __post_init__(self) -> None:
        if self.uses_groups and self.data.classes != "all":
            raise ValueError(
                f"method {self.method!r} groups all classes: it needs data.classes = 'all', got {self.data.classes!r}"
            )
        if self.method.endswith("gsa-proj") and not self.gsa.global_gradient.startswith("project"):
            raise ValueError(
                f"method {self.method!r} perturbs along the projection of Eq. 12, which "
                f"gsa.global_gradient = {self.gsa.global_gradient!r} does not have: use another method or reading"
            )
        if self.loss.name == "bcl" and not self.model.projection:
            raise ValueError("loss.name = 'bcl' needs projection heads: set model.projection = true")

    @property
    def uses_groups(self) -> bool:
        """Whether the method needs the memory bank and its groups."""
        return self.uses_gkp or self.uses_gsa

    @property
    def uses_gkp(self) -> bool:
        """Whether the method holds old encoder parameters by Eq. 6."""
        return self.method.startswith("gkp")

    @property
    def uses_gsa(self) -> bool:
        """Whether the method perturbs each group by Eq. 14."""
        return "gsa" in self.method

    @property
    def uses_sam(self) -> bool:
        """Whether the method perturbs the whole batch as SAM does."""
        return self.method.endswith("sam")

    @property
    def label(self) -> str:
        """Base loss and method as tables name them: ``CE``, ``BCL+GKP+GSA``."""
        base = {"cross-entropy": "CE", "bcl": "BCL"}[self.loss.name]
        parts = self.method.upper().replace("GSA-PROJ", "GSA_proj").split("-")
        return "+".join([base, *(part.replace("_", "-") for part in parts if part != "ERM")])


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with the package: ``data-method``."""
    return tuple(f"{base}-{method}" for base in sorted(_texts()) for method in METHODS)


def preset_names() -> tuple[str, ...]:
    """The presets that come with the package: sets of fields that are put over a recipe."""
    return tuple(sorted(_texts("presets")))


def load_recipe(name: str | Path, changes: Mapping[str, Any] | None = None, presets: Sequence[str] = ()) -> Recipe:
    """Load a recipe by name (``digits-lt-gkp-gsa``) or from a TOML file.

    Args:
        name: a name from :func:`recipe_names`, or the path of a ``.toml`` file.
        changes: dotted field to value, e.g. ``{"training.epochs": 20}``, put over recipe and presets.
        presets: names from :func:`preset_names`, put over what the recipe says, in this order.

    Raises:
        InputError: no such recipe, preset or field, or a value that the field refuses.
    """
    text = str(name)
    if text.endswith(".toml"):
        path = Path(text)
        try:
            content = tomllib.loads(path.read_text())
        except OSError as error:
            raise InputError(f"cannot read the recipe {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not valid TOML: {error}") from None
    else:
        bases = _texts()
        match = [base for base in bases if text in {f"{base}-{method}" for method in METHODS}]
        if not match:
            names = recipe_names()
            known = f"{', '.join(sorted(bases))}, each with -{', -'.join(METHODS)}"
            hint = nearest(text, names) or f"; known: {known}"
            raise InputError(f"there is no recipe {text!r}{hint}")
        content = tomllib.loads(bases[match[0]])
        content["method"] = text.removeprefix(f"{match[0]}-")
    known_presets = _texts("presets")
    for preset in presets:
        if preset not in known_presets:
            hint = nearest(preset, known_presets) or f"; known: {', '.join(sorted(known_presets))}"
            raise InputError(f"there is no preset {preset!r}{hint}")
        for field, value in _flat(tomllib.loads(known_presets[preset])).items():
            _assign(content, field, value)
    for field, value in (changes or {}).items():
        _assign(content, field, value)
    return _convert(content)


def read_recipe(path: Path) -> Recipe:
    """Read a complete recipe from a TOML file, as :func:`write_recipe` wrote it."""
    return load_recipe(path)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write the complete recipe, defaults included, as TOML."""
    write_text(path, tomli_w.dumps(_without_none(msgspec.to_builtins(recipe))))


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``field=value``; the value is read as TOML, and as plain text where it is not TOML.

    Raises:
        InputError: there is no ``=``.
    """
    field, equals, value = text.partition("=")
    if not equals or not field.strip():
        raise InputError(f"--set needs field=value, got {text!r}; for example --set training.epochs=20")
    try:
        return field.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return field.strip(), value.strip()


def rescaled(recipe: Recipe, epochs: int) -> Recipe:
    """The same recipe over other epochs: warm-up, milestones and groupings keep their proportions.

    Raises:
        InputError: ``epochs`` is below 1.
    """
    if epochs < 1:
        raise InputError(f"the number of epochs must be at least 1, got {epochs}")
    factor = epochs / recipe.training.epochs

    def scale(value: int, least: int = 0) -> int:
        return max(least, round(value * factor))

    training = msgspec.structs.replace(
        recipe.training,
        epochs=epochs,
        warmup_epochs=scale(recipe.training.warmup_epochs),
        milestones=tuple(sorted({scale(milestone, 1) for milestone in recipe.training.milestones})),
        checkpoint_every=scale(recipe.training.checkpoint_every, 1),
    )
    groups = msgspec.structs.replace(
        recipe.groups,
        start_epoch=scale(recipe.groups.start_epoch, min(1, recipe.groups.start_epoch)),
        period=scale(recipe.groups.period, 1),
    )
    return msgspec.structs.replace(recipe, training=training, groups=groups)


def differences(first: Recipe, second: Recipe) -> list[str]:
    """The dotted names of the fields in which two recipes differ; where the data lie does not count."""
    ours, theirs = _flat(msgspec.to_builtins(first)), _flat(msgspec.to_builtins(second))
    return [field for field in ours if field != "data.root" and ours[field] != theirs.get(field)]


def _texts(*below: str) -> dict[str, str]:
    """The TOML files of the package's recipes, or of a folder below them, by name."""
    folder = importlib.resources.files("landscape_lab").joinpath("recipes", *below)
    return {
        entry.name.removesuffix(".toml"): entry.read_text()
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            result |= _flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def _assign(content: dict[str, Any], field: str, value: Any) -> None:
    *tables, last = field.split(".")
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise InputError(f"{table!r} in {field!r} is a value, not a table")
    content[last] = value


def _convert(content: dict[str, Any]) -> Recipe:
    _refuse_unknown(content, Recipe, "")
    try:
        return msgspec.convert(content, Recipe)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        field = where.strip("`.")
        choices = _choices(field)
        if choices:
            reason = f"must be one of {', '.join(map(repr, choices))}"
        raise InputError(f"recipe: {field + ': ' if field else ''}{reason}{_got(content, field)}") from None


def _choices(field: str) -> tuple[str, ...]:
    kind: Any = Recipe
    for part in field.split("."):
        if not _is_table(kind):
            return ()
        kind = get_type_hints(kind).get(part)
    return get_args(kind) if get_origin(kind) is Literal else ()


def _got(content: Mapping[str, Any], field: str) -> str:
    value: Any = content
    for part in field.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return ""
        value = value[part]
    return "" if isinstance(value, Mapping) else f", got {value!r}"


def _refuse_unknown(content: Mapping[str, Any], table: type[msgspec.Struct], prefix: str) -> None:
    kinds = get_type_hints(table)
    for key, value in content.items():
        if key not in kinds:
            raise InputError(f"unknown recipe field {prefix + key!r}{_hint(prefix, key, kinds)}")
        kind = kinds[key]
        if isinstance(value, Mapping) and _is_table(kind):
            _refuse_unknown(value, kind, f"{prefix}{key}.")


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _hint(prefix: str, key: str, kinds: Mapping[str, Any]) -> str:
    here = nearest(key, kinds)
    if here:
        return here.replace("'", f"'{prefix}", 1)
    tables = {name: kind for name, kind in get_type_hints(Recipe).items() if _is_table(kind)}
    elsewhere = [f"{name}.{key}" for name, kind in tables.items() if key in get_type_hints(kind)]
    return f" (did you mean {elsewhere[0]!r}?)" if elsewhere else f"; known: {', '.join(sorted(kinds))}"
