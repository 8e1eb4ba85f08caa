"""The training loop. It reads from top to bottom; nothing else trains a network."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof import checkpoint, config, fine_tuning, tracking
from noiseproof.config import Experiment, Recipe
from noiseproof.data import Split, Splits, load
from noiseproof.errors import NoiseproofError, require
from noiseproof.files import locked, write_text
from noiseproof.measure import measure
from noiseproof.methods import Context, Method, Standard
from noiseproof.moments import kept
from noiseproof.networks import adapt
from noiseproof.neurons.rates import RatePenalty
from noiseproof.parameters import Params, parameters_of
from noiseproof.progress import Progress, duration
from noiseproof.randomness import generator, globally_seeded, stochastic
from noiseproof.records import Record, RunFolder
from noiseproof.rehearsal import rehearse

_OF_TRAINING = ("train_loss", "weight_magnitude")


@dataclass
class Training:
    """Where a training stands: what a checkpoint holds and what resuming needs."""

    epoch: int = 0  # epochs done
    best_epoch: int = 0  # counted from 1; by validation accuracy, then by its loss, of those with all at full size
    history: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    method_state: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    seed: int = 0
    samples: tuple[int, int] = (0, 0)  # for training and for validation
    steps: int = 0  # batches of an epoch
    gradient_evaluations: float = 1.0  # passes forward and backward of one of them
    # metric and perturbation of what history has beside clean scores
    tracked: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    described: dict[str, Any] = field(default_factory=dict)  # all settings, as in experiment.toml

    def records(self, run: str, device: str = "cpu") -> list[Record]:
        """Return the records of the whole training; made at its end, so that an interruption leaves no trace in them."""
        of_seed = {"seed": self.seed, "device": device}
        cost = {
            "gradient_evaluations_per_step": self.gradient_evaluations,
            "gradient_evaluations": self.gradient_evaluations * self.steps * self.epoch,
        }
        found = [Record(run, "best_epoch", self.best_epoch, self.samples[1], "validation", **of_seed)]
        found += [Record(run, metric, value, self.samples[0], "train", **of_seed) for metric, value in cost.items()]
        for epoch, scores in enumerate(self.history, start=1):
            for name, value in scores.items():
                metric, n, split = (name, self.samples[0], "train") if name in _OF_TRAINING else (name, self.samples[1], "validation")
                perturbation = {}
                if name in self.tracked:
                    metric, perturbation, n = *self.tracked[name], min(tracking.SAMPLES, n)
                found.append(Record(run, metric, value, n, split, perturbation, {"epoch": float(epoch)}, **of_seed))
        return found


def train(
    network: nn.Module,
    data: Splits,
    method: Method | None = None,
    *,
    device: str = "cpu",
    folder: str | Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Training:
    """Train `network` in place on `data.train`; at the end it has the weights of the epoch that was best on `data.validation`.

    `settings` are the fields of `noiseproof.config.Recipe`: epochs, batch_size, optimizer, learning_rate, schedule, seed …
    With `folder` every epoch is saved there, and the same call goes on where an interrupted one stopped, to bit-identical
    weights on the CPU.

    Raises `NoiseproofError` for a wrong setting, a network that does not fit the data, a loss that is not finite, or a
    folder that holds another experiment.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_train=100)
        >>> network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
        >>> done = npf.train(network, data, npf.methods.ForwardNoise(eta=0.3), epochs=2, progress=False)
        >>> done.epoch
        2
    """
    recipe: Recipe = config.build(Recipe, settings, "train")
    network, method = adapt(network), method or Standard()
    check_device(device)
    rehearse(network, data, method, recipe)
    described = _describe(network, data, method, recipe)
    with _modes_kept(network):
        if folder is None:
            training = _fit(network, data, method, recipe, device, None, Progress("training", 0, quiet=not progress))
        else:
            run = RunFolder(folder)
            with locked(run.path):
                claim(run, described)
                training = _train_in(run, network, data, method, recipe, device, progress, described)
    training.described = described
    return training


def train_experiment(
    experiment: Experiment, run: RunFolder, *, data_dir: str | None = None, device: str = "cpu", progress: bool = True
) -> nn.Module:
    """Train what `experiment` describes into `run`, or go on with it, or do nothing when it is finished; return the network.

    Raises `NoiseproofError` as `train` does.
    """
    check_device(device)
    experiment = fine_tuning.started(experiment)
    described = config.to_dict(experiment)
    if run.experiment_file.exists():
        claim(run, described)
    # all that can be wrong is found before the folder is made
    data = load_data(experiment, data_dir)
    network = build_network(experiment, data)
    found: list[Record] = []
    if not run.weights_file.exists():
        rehearse(network, data, experiment.method, experiment)
        if experiment.start_from:
            found = fine_tuning.start(experiment, network, data, device)
    with locked(run.path):
        claim(run, described)
        if run.weights_file.exists():
            checkpoint.load_weights(run.weights_file, network)
        else:
            if found and not run.state_file.exists():
                run.log(fine_tuning.say(found))
            _train_in(run, network, data, experiment.method, experiment, device, progress, described, found)
    return network.to(device)


def load_data(experiment: Experiment, data_dir: str | None = None) -> Splits:
    """Return the experiment's data, as its seed splits it."""
    return load(
        experiment.data,
        folder=data_dir,
        seed=experiment.seed,
        validation=experiment.validation,
        augment=experiment.augment,
        cutout=experiment.cutout if experiment.augment else 0,  # without augment: refused by `rehearse`, harmless where nothing is trained
        limit_train=experiment.limit_train,
        limit_test=experiment.limit_test,
    )


def build_network(experiment: Experiment, data: Splits) -> nn.Module:
    """Return the experiment's network with its first weights."""
    return experiment.network.build(data.task, generator("weights", experiment.seed))


def check_device(device: str) -> None:
    """Raise `NoiseproofError` unless `device` is there."""
    require(re.fullmatch(r"cpu|cuda(:\d+)?", device) is not None, "device", device, "give cpu, cuda or cuda:1")
    if device.startswith("cuda"):
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        number = int(device.partition(":")[2] or 0)
        if number >= there:
            found = f"{there} CUDA GPUs" if there else "no CUDA GPU"
            raise NoiseproofError(f"device is {device!r}: PyTorch finds {found} here; use --device cpu")


def _train_in(
    run: RunFolder,
    network: nn.Module,
    data: Splits,
    method: Method,
    recipe: Recipe,
    device: str,
    progress: bool,
    described: dict[str, Any],
    found: Sequence[Record] = (),
) -> Training:
    """Train into `run`; `found`: records of how the first weights were made."""
    # without weights, what was once measured belongs to weights that are gone
    run.records_file.unlink(missing_ok=True)
    name = described.get("name") or described["method"]["name"]
    bar = Progress(f"training {name}, seed {recipe.seed}", 0, quiet=not progress)
    training = _fit(network, data, method, recipe, device, run, bar)
    identity = config.from_dict(described).identity if "shapes" not in described["network"] else config.identity_of(described)
    run.append([*found, *training.records(identity, device)])
    run.write_environment(device, training.seconds)
    # the last file: where it stands, the training is finished
    checkpoint.save_weights(run.weights_file, training.best_weights)
    return training


def _fit(network: nn.Module, data: Splits, method: Method, recipe: Recipe, device: str, run: RunFolder | None, bar: Progress) -> Training:
    network.to(device)
    train_split, validation = data.train.to(device), data.validation.to(device)
    optimizer = method.make_optimizer(list(network.parameters())) or recipe.make_optimizer(list(network.parameters()))
    rates = [group["lr"] for group in optimizer.param_groups]
    training = _restore(network, optimizer, method, run, device)
    training.seed, training.samples, training.tracked = (
        recipe.seed,
        (len(train_split), len(validation)),
        {f.name: (f.metric, f.perturbation) for f in tracking.followed(recipe)},
    )
    training.steps = -(-len(train_split) // recipe.batch_size)
    training.gradient_evaluations = float(method.gradient_evaluations_on(network))

    bar.total, bar.done = training.steps * recipe.epochs, training.steps * training.epoch
    with bar.restart():
        if training.epoch:
            bar.say(f"goes on after epoch {training.epoch}")
        for epoch in range(training.epoch, recipe.epochs):
            begun = time.monotonic()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * recipe.schedule_at(epoch)
            loss = _epoch(network, train_split, data.augment_batch, method, recipe, optimizer, epoch, training.method_state, bar)
            scores = _validate(network, validation, recipe, epoch)
            training.seconds += time.monotonic() - begun
            training.epoch = epoch + 1
            training.history.append({"train_loss": loss, "weight_magnitude": _weight_magnitude(network), **scores})
            _keep_best(training, network, method.risen_after)
            if run is not None:
                _save(run, network, optimizer, training)
            line = f"epoch {training.epoch} of {recipe.epochs}, loss {loss:.4f}, validation {100 * scores['validation_accuracy']:.2f} %"
            bar.advance(0, note=line)
            if run is not None:
                run.log(line)
        bar.say(f"best epoch {training.best_epoch} of {training.epoch}, {duration(training.seconds)}")
    network.load_state_dict(training.best_weights)
    return training


def _epoch(
    network: nn.Module,
    split: Split,
    augment_batch: Callable[[Tensor, torch.Generator], Tensor] | None,
    method: Method,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    state: dict[str, Tensor],
    bar: Progress,
) -> float:
    """Train one epoch and return the mean loss. All its randomness comes from (seed, epoch): a resumed run draws the same."""
    device = split.x.device
    draw = generator("method", recipe.seed, epoch, device=device)
    draw_batch = generator("augment batch", recipe.seed, epoch, device=device)
    draw_projection = generator("projection", recipe.seed, epoch, device=device)
    order = torch.randperm(len(split), generator=generator("order", recipe.seed, epoch)).to(device)
    total, updates = torch.zeros((), device=device), 0
    network.train()
    rates = RatePenalty(network, recipe.rate_penalty, recipe.rate_target) if recipe.rate_penalty else None
    first = epoch * -(-len(split) // recipe.batch_size)
    projections = recipe.projections()

    def penalty() -> Tensor:
        return torch.zeros((), device=device) if rates is None else rates.take()

    def update(loss: Tensor, gradient: Params | None = None, free: Params | None = None) -> None:
        nonlocal updates
        if not bool(torch.isfinite(loss)):
            raise NoiseproofError(
                f"loss is {loss.item()} in epoch {epoch + 1}, step {step + 1} of it, learning rate {recipe.learning_rate_at(epoch):g}: "
                "lower the learning rate or the strength of the method, or look for NaN in the data"
            )
        params: Params = dict(network.named_parameters())
        optimizer.zero_grad()
        if gradient is None:
            loss = loss + penalty()
            with torch.autocast(device.type, enabled=False):
                loss.backward()
        else:
            for name, value in gradient.items():
                params[name].grad = value.detach().clone()
        with kept(optimizer, params, free or {}):
            optimizer.step()
        method.after_step(params)
        for project in projections:
            project(params, draw_projection)
        total.add_(loss.detach())
        updates += 1

    with _seeded(recipe.seed, epoch, device), _precision(recipe, device), rates or contextlib.nullcontext():
        for step, index in enumerate(order.split(recipe.batch_size)):
            context = Context(draw, first + step, epoch, recipe.epochs, state, penalty)
            x = split.x[index] if augment_batch is None else augment_batch(split.x[index], draw_batch)
            with stochastic(recipe.seed, first + step):
                method.step(network, (x, split.y[index]), context, update)
            bar.advance()
    return float(total) / max(1, updates)


def _validate(network: nn.Module, split: Split, recipe: Recipe, epoch: int) -> dict[str, float]:
    params: Params = parameters_of(network)
    clean = measure(network, params, split.x, split.y)
    found = {"validation_accuracy": clean.accuracy, "validation_loss": clean.loss}
    return found | tracking.scores(network, params, split, recipe, epoch)


@torch.no_grad()
def _weight_magnitude(network: nn.Module) -> float:
    """Return the mean of |w| over all matrices and kernels."""
    weights = [p for p in network.parameters() if p.ndim >= 2] or list(network.parameters())
    return float(sum(w.abs().sum(dtype=torch.float64) for w in weights)) / sum(w.numel() for w in weights)


def _keep_best(training: Training, network: nn.Module, risen_after: int) -> None:
    """Keep the weights if no epoch was better; those in which something of the method still rises do not count."""

    def merit(scores: dict[str, float]) -> tuple[float, float]:
        return scores["validation_accuracy"], -scores["validation_loss"]

    if training.epoch <= risen_after:
        return
    if training.best_epoch <= risen_after or merit(training.history[-1]) > merit(training.history[training.best_epoch - 1]):
        training.best_epoch = training.epoch
        training.best_weights = {name: w.detach().clone() for name, w in network.state_dict().items()}


def _save(run: RunFolder, network: nn.Module, optimizer: torch.optim.Optimizer, training: Training) -> None:
    checkpoint.save_state(run.state_file, {**vars(training), "weights": network.state_dict(), "optimizer": optimizer.state_dict()})


def _restore(network: nn.Module, optimizer: torch.optim.Optimizer, method: Method, run: RunFolder | None, device: str) -> Training:
    """Return the training of the checkpoint, with network and optimiser as they were, or a new one."""
    saved = checkpoint.load_state(run.state_file) if run is not None else None
    if saved is None:
        return Training(method_state=method.start(network))
    try:
        network.load_state_dict(saved.pop("weights"))
        optimizer.load_state_dict(saved.pop("optimizer"))
    except (RuntimeError, ValueError) as error:
        raise NoiseproofError(f"{run.path if run else ''}: state.pt belongs to another network: {str(error).splitlines()[0]}") from None
    training = Training(**saved)
    training.method_state = {name: value.to(device) for name, value in training.method_state.items()}
    return training


def claim(run: RunFolder, described: dict[str, Any]) -> None:
    """Write experiment.toml, or make sure that the one which is there is the same experiment.

    Raises `NoiseproofError` naming the first setting that differs.
    """
    if not run.experiment_file.exists():
        write_text(run.experiment_file, config.dumps(described))
        return
    there = run.settings()
    if "shapes" not in there.get("network", {}):
        there = config.to_dict(config.from_dict(there))
    if config.identity_of(there) != config.identity_of(described):
        different = sorted(key for key in there.keys() | described.keys() if key != "name" and there.get(key) != described.get(key))
        key = different[0]
        raise NoiseproofError(
            f"{run.path} holds another experiment: {key} is {there.get(key)!r} there and {described.get(key)!r} here; choose another --out"
        )


def _describe(network: nn.Module, data: Splits, method: Method, recipe: Recipe) -> dict[str, Any]:
    """Return what stands in experiment.toml for a network or data from outside: enough to recognise them, not to build them."""
    shapes = {name: list(p.shape) for name, p in network.named_parameters()}
    outside = {"name": type(getattr(network, "module", network)).__name__, "parameters": sum(p.numel() for p in network.parameters())}
    content = checkpoint.digest([data.train.x, data.train.y, data.validation.x, data.validation.y])
    described = config.to_dict(recipe) | {"data": data.task.name, "samples": len(data.train), "data_sha256": content}
    if data.augment_batch is not None:  # a function's repr has its address, which is another one when it is resumed
        described["augment_batch"] = getattr(data.augment_batch, "__qualname__", None) or repr(data.augment_batch)
    takes_time = getattr(network, "describe", dict)()  # of an adapted spiking network: another number of steps is another experiment
    network_said = outside | takes_time | {"shapes": config.identity_of(shapes)}
    return described | {"network": network_said, "method": config.part_to_dict("method", method)}


@contextlib.contextmanager
def _modes_kept(network: nn.Module) -> Iterator[None]:
    """Put every module back into its own mode at the end, as a user who evaluates next expects."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _seeded(seed: int, epoch: int, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Seed what outside networks draw their dropout from, for one epoch."""
    return globally_seeded(int(torch.randint(2**31, (1,), generator=generator("global", seed, epoch))), device)


def _precision(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    enabled = recipe.precision == "bfloat16"
    # no cache of cast weights: an attack makes new weights at every step
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled, cache_enabled=False)
