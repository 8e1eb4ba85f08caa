from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof import config
from noiseproof.attacks import Attack, GradientAttack
from noiseproof.checkpoint import digest
from noiseproof.data import Split, Splits
from noiseproof.errors import NoGradientError, require
from noiseproof.evaluation.attack_curves import attack_curves
from noiseproof.evaluation.chips import Measurer, measurer
from noiseproof.evaluation.fixed_chips import fix_number
from noiseproof.evaluation.ladder import blocks_of as blocks_of_boxes
from noiseproof.evaluation.ladder import check_certifiable, ladder
from noiseproof.evaluation.landscape import ALPHAS, landscape
from noiseproof.evaluation.layers import in_layer, layer_sensitivity, layers_of
from noiseproof.evaluation.ledger import Ledger
from noiseproof.evaluation.measures import Measures
from noiseproof.evaluation.membranes import BLOCK, layers_with_membranes, membranes
from noiseproof.evaluation.monte_carlo import monte_carlo
from noiseproof.evaluation.robustness import blocks_of, robustness
from noiseproof.evaluation.sources import with_source
from noiseproof.evaluation.spikes import check_inside, inside, work
from noiseproof.evaluation.tolerated import tolerated
from noiseproof.measure import measure
from noiseproof.networks import adapt
from noiseproof.networks.adapt import check_fits
from noiseproof.noise import Noise
from noiseproof.parameters import parameters_of, select
from noiseproof.progress import Progress
from noiseproof.randomness import generator, stochastic
from noiseproof.records import Record, environment
from noiseproof.training import Training


@dataclass(frozen=True)
class Evaluation:
    """The records of one network; reports take it like a run folder."""

    described: dict[str, Any]
    found: list[Record]
    device: str = "cpu"

    def __repr__(self) -> str:
        return f"Evaluation({self.described.get('name', 'network')!r}, {len(self.found):,} records)"

    def records(self) -> list[Record]:
        """Return all records."""
        return self.found

    def settings(self) -> dict[str, Any]:
        """Return what is known of how the network was made."""
        return self.described

    def environment(self) -> dict[str, Any]:
        """Return versions, machine and device."""
        return environment(self.device)

    def report(self, path: str | Path, *, title: str = "noiseproof report") -> None:
        """Write one self-contained HTML file; `noiseproof.report.write([a, b], path)` sets several networks side by side."""
        from noiseproof import report

        report.write([self], Path(path), title=title)


def evaluate(
    network: nn.Module,
    data: Splits,
    noise: Sequence[Noise] | None = None,
    *,
    name: str = "network",
    training: Training | None = None,
    processes: int | None = None,
    progress: bool = True,
    **settings: Any,
) -> Evaluation:
    """Measure `network` on `data.test`: as it is, on simulated chips, under attack, in boxes, along random directions, layer by layer.

    `noise`: the noises to simulate, one after the other; `settings` are the fields of `Measures` (mismatch, chips,
    half_width, attack, landscape, required_accuracy …), whose mismatch levels hold when no noise is given. With `training`,
    what `train` returned, the report shows how the network was made. The work is done on the network's device; on a GPU simulated
    chips are computed as PyTorch is set, which may be in TF32, boxes in full single precision.

    Raises `NoiseproofError` for a wrong setting or a network that does not fit the data, before any long work.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=50)
        >>> network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
        >>> result = npf.evaluate(network, data, noise=[npf.noise.Mismatch(zeta=0.3)], chips=4, processes=1, progress=False)
        >>> len([r for r in result.records() if r.chip is not None])
        4
    """
    if noise is not None:
        settings = {"mismatch": (), **settings}
    measures: Measures = config.build(Measures, settings, "evaluate")
    network = adapt(network)
    identity = digest(dict(network.named_parameters()))[:16]
    device = str(next(network.parameters()).device)
    ledger = Ledger(identity, training.records(identity, device) if training else (), device=device)
    measure_all(
        network, data, measures, ledger, noises=[*(noise or ()), *measures.noises()], name=name, processes=processes, progress=progress
    )
    described = {"name": name, "data": data.task.name, "network": {"name": type(getattr(network, "module", network)).__name__}}
    return Evaluation({**(training.described if training else {}), **described}, ledger.records, device)


def certify(
    network: nn.Module,
    data: Splits,
    boxes: Sequence[float] = (0.001, 0.01),
    *,
    samples: int = 200,
    bounds: Sequence[str] = (),
    **settings: Any,
) -> Evaluation:
    """Prove for the first `samples` samples of `data.test` what no chip of a box |θ' − θ| ≤ z|θ| can do, and attack them in it.

    `boxes`: the half-widths z; `bounds`: intervals, backward, backward-full, spiking, spiking-backward, or all that fit. The records
    hold the ladder (`noiseproof.evaluation.ladder`) of every box. `settings`: fields of `Measures` (box_parameters, box_eps, box_steps,
    mismatch, chips …) and what `evaluate` takes beside them; without a mismatch no chips are simulated.

    Raises `NoiseproofError` as `evaluate` does, for a layer without a bound, and when a certified sample is broken.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(16,)).build(data.task, torch.Generator().manual_seed(0))
        >>> result = npf.certify(network, data, boxes=[0.01], bounds=["intervals"], progress=False)
        >>> sorted({record.metric for record in result.records() if record.perturbation})
        ['box_parameters', 'certified', 'seconds_certifying', 'survived']
    """
    require(not isinstance(boxes, int | float), "boxes", boxes, f"give half-widths, as [{boxes}]")
    require(not isinstance(bounds, str), "bounds", bounds, f"give names, as [{bounds!r}]")
    asked = {"box": tuple(boxes), "box_samples": samples, "box_bounds": tuple(bounds), "mismatch": (), **settings}
    return evaluate(network, data, **asked)


def check_measures(network: nn.Module, data: Splits, measures: Measures, noises: Sequence[Noise] | None = None) -> None:
    """Try on two samples all that will be measured, before any long work.

    Raises `NoiseproofError` when the network does not fit the data, or something that is asked for cannot be measured on it.
    """
    params = parameters_of(network)
    x = data.test.x[:2].to(next(iter(params.values())).device)
    check_fits(network, x, data.task.classes)
    select(params, measures.parameters)
    ends = (end for between in measures.ranges() for end in (between.low, between.high))
    for noise in (*(measures.noises() if noises is None else noises), *measures.noises_by_layer(), *ends):
        noise({name: p.detach() for name, p in params.items()}, generator("check", 0))
    if measures.membranes:
        layers_with_membranes(network, x)
    y = data.test.y[:2].to(x.device)
    with stochastic(0):
        check_inside(network, Split(x, y), measures)
    check_certifiable(network, x, y, measures.boxes(), measures.rungs())
    for attack in with_source(network, measures.on_inputs(), measures.transfer_from, data, str(x.device)):
        check_attack(network, x, attack)


def check_attack(network: nn.Module, x: Tensor, attack: Attack) -> None:
    """Raise `NoiseproofError` when an attack on the inputs does not fit the network or the data; x [B, …] holds a few samples."""
    network = adapt(network)
    attack.check(network, x)
    if isinstance(attack, GradientAttack):
        with stochastic(0), attack.seen(network, 0) as view:
            view.gradient(x, lambda logits: logits.logsumexp(-1))


def measure_all(
    network: nn.Module,
    data: Splits,
    measures: Measures,
    ledger: Ledger,
    *,
    noises: Sequence[Noise] | None = None,
    name: str = "network",
    processes: int | None = None,
    progress: bool = True,
    folder: str | Path = ".",
) -> None:
    """Measure what `measures` asks for and `ledger` does not hold yet; `folder` is where a sample is saved that breaks a certificate.

    Raises `NoiseproofError` as `check_measures` does, and for such a sample.
    """
    noises = measures.noises() if noises is None else noises
    check_measures(network, data, measures, noises)
    device = str(next(network.parameters()).device)
    test = data.test.to(device)
    _plain(network, test, ledger)
    with stochastic(0), Progress(f"evaluating {name}", _work(network, measures, noises), quiet=not progress) as bar:
        shared = {"ledger": ledger, "progress": bar}
        with measurer(network, test, processes=processes) as measure_chips:
            _on_chips(network, test, measures, noises, measure=measure_chips, **shared)
        if measures.landscape and "train" in measures.landscape_splits:
            train = _as_many(data.train, len(test), measures.chip_seed).to(device)
            _landscape(network, train, measures, split_name="train", processes=processes, **shared)
        if measures.membranes:
            membranes(network, test, samples=measures.membranes, **shared)
        inside(network, test, measures, **shared)
        attack_curves(
            network, test, measures.attacks(), restarts=measures.attack_restarts, samples=measures.attack_samples,
            seed=measures.chip_seed, **shared,
        )  # fmt: skip
        ladder(
            network, test, measures.boxes(), samples=measures.box_samples, rungs=measures.rungs(), seed=measures.chip_seed,
            save_folder=folder, **shared,
        )  # fmt: skip
        for attack in with_source(network, measures.on_inputs(), measures.transfer_from, data, device):
            _attack_inputs(network, test, attack, measures, **shared)


def _attack_inputs(network: nn.Module, test: Split, attack: Attack, measures: Measures, ledger: Ledger, progress: Progress) -> None:
    """Record what an attack on the inputs leaves, or that it says nothing about this network: the others are still made."""
    samples, seed = measures.input_samples, measures.chip_seed
    options: dict[str, Any] = {"samples": samples, "seeds": measures.input_seeds, "seed": seed, "checks": measures.input_checks}
    try:
        robustness(network, test, attack, **options, ledger=ledger, progress=progress)
    except NoGradientError as blind:
        described = attack.describe()
        ledger.add([ledger.make("zero_gradient_share", 1.0, min(samples, len(test)), described, seed=seed)])
        progress.say(f"{described['name']}: {blind}")


def _on_chips(
    network: nn.Module, test: Split, measures: Measures, noises: Sequence[Noise], *, measure: Measurer, ledger: Ledger, progress: Progress
) -> None:
    """Measure all that needs simulated chips or other weights on test data."""
    shared = {"measure": measure, "ledger": ledger}
    fixed = not measures.half_width and fix_number(noises, measures.chips, measures.chip_seed, len(test), ledger)
    if measures.box and measures.mismatch and not fixed:
        progress.say(
            f"chips of seed {measures.chip_seed} were simulated before their number was fixed to {measures.chips}, so that these add "
            "nothing to statements about all chips; those of another chip_seed would"
        )
    levels = {"half_width": measures.half_width, "max_chips": measures.max_chips, "chips": measures.chips, "seed": measures.chip_seed}
    for noise in noises:
        monte_carlo(network, test, noise, **levels, **shared, progress=progress)
    if measures.landscape and "test" in measures.landscape_splits:
        _landscape(network, test, measures, **shared, progress=progress)
    for between in measures.ranges():
        tolerated(
            network, test, between.low, between.high, measures.required_accuracy, required_yield=measures.required_yield,
            chips=measures.chips, seed=measures.chip_seed, **shared,
        )  # fmt: skip
    layer_sensitivity(network, test, measures.noises_by_layer(), **levels, **shared, progress=progress)


def _landscape(network: nn.Module, split: Split, measures: Measures, **options: Any) -> None:
    landscape(network, split, directions=measures.landscape, parameters=measures.parameters, seed=measures.chip_seed, **options)


def _as_many(split: Split, most: int, seed: int) -> Split:
    """Return at most `most` samples of a split, drawn once: training data may be sorted."""
    drawn = torch.randperm(len(split), generator=generator("samples", seed))[:most]
    return split if len(split) <= most else Split(split.x[drawn], split.y[drawn])


def _work(network: nn.Module, measures: Measures, noises: Sequence[Noise]) -> int:
    """Return how many steps of progress the measurements make."""
    inside = [in_layer(network, noise, names) for names in layers_of(network).values() for noise in measures.noises_by_layer()]
    kinds = [noise for noise in (*noises, *inside) if noise is not None]
    chips = sum(1 if noise.deterministic else measures.chips for noise in kinds)
    return (
        chips
        + len(measures.attacks()) * measures.attack_restarts
        + blocks_of_boxes(measures.boxes(), measures.box_samples)
        + blocks_of(measures.on_inputs(), measures.input_samples, measures.input_seeds, measures.input_checks)
        + measures.landscape * len(ALPHAS) * len(set(measures.landscape_splits))
        + -(-measures.membranes // BLOCK)
        + work(measures)
    )


def _plain(network: nn.Module, test: Split, ledger: Ledger) -> None:
    """Record accuracy and cross-entropy of the network as it is."""
    if ledger.find(ledger.make("cross_entropy", 0.0, len(test))) is None:
        result = measure(network, parameters_of(network), test.x, test.y)
        ledger.add([ledger.make("accuracy", result.accuracy, len(test)), ledger.make("cross_entropy", result.loss, len(test))])
