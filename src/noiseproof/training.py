"""The training loop. It reads from top to bottom; nothing else trains a network."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof import checkpoint, config
from noiseproof.attacks import WeightAttack
from noiseproof.config import Experiment, Recipe
from noiseproof.data import Split, Splits, load
from noiseproof.errors import NoiseproofError, require
from noiseproof.files import locked, write_text
from noiseproof.measure import measure
from noiseproof.methods import Context, Method, Standard
from noiseproof.networks import adapt
from noiseproof.networks.adapt import check_fits
from noiseproof.neurons.rates import RatePenalty
from noiseproof.noise import Noise
from noiseproof.parameters import Params, parameters_of
from noiseproof.progress import Progress, duration
from noiseproof.randomness import generator, globally_seeded, stochastic
from noiseproof.records import Record, RunFolder

TRACKED_SAMPLES = 1000  # validation samples of what is tracked during training
_OF_TRAINING = ("train_loss", "weight_magnitude")


@dataclass
class Training:
    """Where a training stands: what a checkpoint holds and what resuming needs."""

    epoch: int = 0  # epochs done
    best_epoch: int = 0  # counted from 1; chosen by validation accuracy, then by validation loss
    history: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    method_state: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    seed: int = 0
    samples: tuple[int, int] = (0, 0)  # for training and for validation
    steps: int = 0  # batches of an epoch
    gradient_evaluations: float = 1.0  # passes forward and backward of one of them
    tracked: dict[str, dict[str, Any]] = field(default_factory=dict)  # what history has beside clean scores, with its perturbation
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
                if name in self.tracked:
                    metric, n = "accuracy", min(TRACKED_SAMPLES, n)
                at = {"epoch": float(epoch)}
                found.append(Record(run, metric, value, n, split, self.tracked.get(name, {}), at, **of_seed))
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
    experiment = started(experiment)
    described = config.to_dict(experiment)
    if run.experiment_file.exists():
        claim(run, described)
    # all that can be wrong is found before the folder is made
    data = load_data(experiment, data_dir)
    network = build_network(experiment, data)
    if not run.weights_file.exists():
        rehearse(network, data, experiment.method, experiment)
    with locked(run.path):
        claim(run, described)
        if run.weights_file.exists():
            checkpoint.load_weights(run.weights_file, network)
        else:
            if experiment.start_from:
                checkpoint.load_weights(RunFolder(experiment.start_from).weights_file, network)
            _train_in(run, network, data, experiment.method, experiment, device, progress, described)
    return network.to(device)


def started(experiment: Experiment) -> Experiment:
    """Return the experiment with the identity of the run from whose weights it starts, so that other weights are another experiment.

    Raises `NoiseproofError` when that run is not there or not finished, or is not the one from which the experiment once started.
    """
    if not experiment.start_from:
        return experiment
    run = RunFolder(experiment.start_from)
    found = config.from_dict(run.settings()).identity
    require(run.weights_file.exists(), "start_from", experiment.start_from, "its training is not finished; finish it first")
    if experiment.started_from not in ("", found):
        raise NoiseproofError(
            f"start_from is {experiment.start_from!r}: it holds another experiment ({found}) than the training started from "
            f"({experiment.started_from})"
        )
    return replace(experiment, started_from=found)


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


def rehearse(network: nn.Module, data: Splits, method: Method, recipe: Recipe) -> None:
    """Take the loss once on a copy of the network, on as few samples as the last batch has: what cannot work is found now.

    Raises `NoiseproofError` when the network does not fit the data, or the method does not fit the network.
    """
    if isinstance(recipe, Experiment) and not recipe.augment:
        require(not recipe.cutout, "cutout", recipe.cutout, "it is a part of the augmentation; set augment too, or leave it out")
    check_fits(network, data.train.x, data.task.classes)
    if recipe.rate_penalty:
        RatePenalty(network, recipe.rate_penalty, recipe.rate_target)
    last = len(data.train) % recipe.batch_size or min(recipe.batch_size, len(data.train))
    twin = copy.deepcopy(network).cpu().train()
    context = Context(generator("rehearsal", 0), state=method.start(twin))
    batch = (data.train.x[: min(last, 2)], data.train.y[: min(last, 2)])
    try:
        with _seeded(0, 0, torch.device("cpu")), stochastic(0):
            method.step(twin, batch, context, lambda loss, gradient=None, free=None: None)
        for project in recipe.projections():
            project(dict(twin.named_parameters()))
        for noise in recipe.tracked_noises():
            noise(parameters_of(twin), generator("rehearsal", 0))
    except NoiseproofError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise NoiseproofError(f"the network cannot be trained with batch_size {recipe.batch_size}, last batch {last}: {reason}") from error


def _train_in(
    run: RunFolder, network: nn.Module, data: Splits, method: Method, recipe: Recipe, device: str, progress: bool, described: dict[str, Any]
) -> Training:
    # without weights, what was once measured belongs to weights that are gone
    run.records_file.unlink(missing_ok=True)
    name = described.get("name") or described["method"]["name"]
    bar = Progress(f"training {name}, seed {recipe.seed}", 0, quiet=not progress)
    training = _fit(network, data, method, recipe, device, run, bar)
    identity = config.from_dict(described).identity if "shapes" not in described["network"] else config.identity_of(described)
    run.append(training.records(identity, device))
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
    training.seed, training.samples, training.tracked = recipe.seed, (len(train_split), len(validation)), _tracked(recipe)
    training.steps, training.gradient_evaluations = -(-len(train_split) // recipe.batch_size), float(method.gradient_evaluations)

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
            _keep_best(training, network)
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
        with _kept(optimizer, params, free or {}):
            optimizer.step()
        method.after_step(params)
        for project in projections:
            project(params)
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


@contextlib.contextmanager
def _kept(optimizer: torch.optim.Optimizer, params: Params, free: Params) -> Iterator[None]:
    """Put back at the end what a step did to entries that are not free: their values, and their moments in the optimiser."""
    fixed = [(params[name], ~mask.bool()) for name, mask in free.items()]
    before = [(p.detach().clone(), {k: v.clone() for k, v in _moments(optimizer, p).items()}) for p, _ in fixed]
    yield
    with torch.no_grad():
        for (p, mask), (value, moments) in zip(fixed, before, strict=True):
            # not by indexing with the mask, which takes several times as long
            p.copy_(value.where(mask, p))
            for key, now in _moments(optimizer, p).items():
                # a moment that was not there before the first step was zero
                now.copy_(moments[key].where(mask, now) if key in moments else now.masked_fill(mask, 0.0))


def _moments(optimizer: torch.optim.Optimizer, p: Tensor) -> dict[str, Tensor]:
    return {k: v for k, v in optimizer.state.get(p, {}).items() if isinstance(v, Tensor) and v.shape == p.shape and v.ndim > 0}


def _validate(network: nn.Module, split: Split, recipe: Recipe, epoch: int) -> dict[str, float]:
    params: Params = parameters_of(network)
    clean = measure(network, params, split.x, split.y)
    scores = {"validation_accuracy": clean.accuracy, "validation_loss": clean.loss}
    x, y = split.x[:TRACKED_SAMPLES], split.y[:TRACKED_SAMPLES]
    if recipe.track_attack:
        for objective, attack in _attacks(recipe.track_attack).items():
            with stochastic(0):
                worst = attack(network, params, [(x, y)], generator("tracked attack", recipe.seed, epoch))
            scores[f"attacked, {objective}"] = measure(network, worst.params, x, y).accuracy
        chance = _attacks(recipe.track_attack)["kl"].random_point(network, params, generator("tracked point", recipe.seed, epoch))
        scores["random point"] = measure(network, chance, x, y).accuracy
    for noise in recipe.tracked_noises():
        # the same chips after every epoch
        chips = [noise(params, generator("tracked chip", recipe.seed, i)) for i in range(recipe.track_chips)]
        scores[_under(noise)] = sum(_on_chip(network, noise, chip, x, y) for chip in chips) / len(chips)
    return scores


@torch.no_grad()
def _on_chip(network: nn.Module, noise: Noise, chip: Params, x: Tensor, y: Tensor) -> float:
    with noise.converters(chip):
        return measure(network, chip, x, y).accuracy


def _attacks(zeta: float) -> dict[str, WeightAttack]:
    return {"kl": WeightAttack(zeta=zeta, parameters="all"), "ce": WeightAttack(zeta=zeta, objective="ce", parameters="all")}


def _under(noise: Noise) -> str:
    return f"under {json.dumps(noise.describe(), sort_keys=True)}"


def _tracked(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the perturbation of every score that `_validate` adds."""
    found = {_under(noise): noise.describe() for noise in recipe.tracked_noises()}
    if recipe.track_attack:
        found |= {f"attacked, {objective}": attack.describe() for objective, attack in _attacks(recipe.track_attack).items()}
        found["random point"] = {"name": "random-point", "zeta": recipe.track_attack, "norm": "linf", "parameters": "all"}
    return found


@torch.no_grad()
def _weight_magnitude(network: nn.Module) -> float:
    """Return the mean of |w| over all matrices and kernels."""
    weights = [p for p in network.parameters() if p.ndim >= 2] or list(network.parameters())
    return float(sum(w.abs().sum(dtype=torch.float64) for w in weights)) / sum(w.numel() for w in weights)


def _keep_best(training: Training, network: nn.Module) -> None:
    def merit(scores: dict[str, float]) -> tuple[float, float]:
        return scores["validation_accuracy"], -scores["validation_loss"]

    if not training.best_epoch or merit(training.history[-1]) > merit(training.history[training.best_epoch - 1]):
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
