"""Made-up records of every kind: the report is a function of records, so any records will do to test it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from noiseproof.records import Record

TIMES = (25.0, 3600.0, 86400.0, 2592000.0, 31536000.0)
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
# clean accuracy and how fast it falls: mean at ζ is clean − fall·ζ², standard deviation spread·ζ
METHODS = {
    "standard": (0.913, 1.10, 0.110),
    "dropout": (0.924, 0.78, 0.100),
    "forward-noise": (0.920, 0.12, 0.030),
    "weight-adversary": (0.921, 0.26, 0.060),
    "forward noise + β": (0.9188, 0.08, 0.018),
}


def chip_records(run: str, accuracies: Mapping[float, list[float]], *, name="mismatch", setting="zeta", n=1000, **settings) -> list[Record]:
    """One record per chip and level."""
    return [
        Record(run, "accuracy", value, n, perturbation={"name": name, setting: level, **settings}, chip=chip, seed=0)
        for level, values in accuracies.items()
        for chip, value in enumerate(values)
    ]


def falling(clean: float, fall: float, chips: int, seed: int = 0) -> list[float]:
    """Accuracies of chips that lose about `fall`."""
    rng = np.random.default_rng([seed, int(1000 * fall)])
    return np.clip(clean - fall * (0.5 + rng.gamma(4, 0.125, chips)), 0.1, 1).round(3).tolist()


def on_memory(run: str, clean: float, loss: float, chips: int = 20, seed: int = 0) -> list[Record]:
    """Chips of phase-change memory through time; they lose `loss` per decade."""
    draws = {t: falling(clean, loss * np.log10(t), chips, seed) for t in TIMES}
    settings = {"g_max": 25.0, "read_noise": True, "dac_bits": 8, "adc_bits": 8, "tile_rows": 256, "tile_columns": 256, "mapping": "tile"}
    return chip_records(run, draws, name="pcm", setting="time", **settings, parameters="weights")


def on_grid(run: str, clean: float, fall: float, chips: int = 20) -> list[Record]:
    """Chips with quantised weights and mismatch: bits × ζ."""
    return [
        record
        for bits in (2, 4, 8)
        for record in chip_records(
            run, {z: falling(clean - 0.9 / 2**bits, fall * z, chips, bits) for z in (0.1, 0.3, 0.5)},
            name="quantisation > mismatch", bits=bits, per="channel", parameters="all",
        )
    ]  # fmt: skip


def cost(run: str, evaluations: float, epochs: int = 8, n: int = 54_000, batch: int = 100) -> list[Record]:
    """What training writes about its budget."""
    total = evaluations * epochs * -(-n // batch)
    values = {"gradient_evaluations_per_step": evaluations, "gradient_evaluations": total}
    return [Record(run, metric, value, n, "train") for metric, value in values.items()]


def everything(run: str, kind: str, seed: int, chips: int = 100) -> list[Record]:
    """All kinds of records that a report can show, for one network."""
    rng = np.random.default_rng([seed, len(kind)])
    clean, fall, spread = METHODS[kind]
    clean += 0.002 * rng.standard_normal()
    falls = {z: clean - fall * z**2 * (1 + 0.1 * rng.standard_normal()) for z in LEVELS}
    draw = {z: np.clip(falls[z] - spread * z * (rng.gamma(2, 0.7, chips) - 1.4), 0.1, 1).round(3).tolist() for z in LEVELS}
    records = chip_records(run, draw, parameters="all")
    records += [Record(run, "accuracy", clean, 10_000), Record(run, "cross_entropy", 0.25, 10_000)]
    for objective in ("kl", "ce"):
        for z in (0.025, 0.05, 0.1):
            attack = {"name": "weight-attack", "zeta": z, "norm": "linf", "objective": objective, "steps": 10, "parameters": "all"}
            for restart in range(3):
                left = max(0.1, clean - fall * 8 * z + 0.01 * rng.random())
                records.append(Record(run, "accuracy", left, 10_000, perturbation=attack, at={"restart": restart}, seed=0))
    for z in (0.025, 0.05, 0.1):
        point = {"name": "random-point", "zeta": z, "norm": "linf", "parameters": "all"}
        records += [Record(run, "accuracy", clean - fall * z**2, 10_000, perturbation=point, at={"restart": k}, seed=0) for k in range(3)]
    direction = {"name": "direction", "zeta": 0.2, "parameters": "all"}
    for d in range(5):
        steep = fall * (0.8 + 0.4 * rng.random())
        for alpha in np.linspace(-2, 2, 21):
            at = {"alpha": round(float(alpha), 3), "direction": d}
            records.append(Record(run, "cross_entropy", 0.25 + steep * alpha**2 / 4, 10_000, perturbation=direction, at=at, seed=0))
    tracked = {"name": "weight-attack", "zeta": 0.1, "norm": "linf", "objective": "kl", "steps": 10, "parameters": "all"}
    for epoch in range(1, 9):
        at = {"epoch": epoch}
        rise = 1 - np.exp(-epoch / 2)
        records += [
            Record(run, "train_loss", 0.2 + 1.2 / epoch, 54_000, "train", at=at),
            Record(run, "validation_accuracy", clean * rise, 6_000, "validation", at=at),
            Record(run, "validation_loss", 0.25 + 0.8 / epoch, 6_000, "validation", at=at),
            Record(run, "seconds", 31.0, 54_000, "train", at=at),
            Record(run, "accuracy", max(0.1, (clean - fall * 0.8) * rise), 6_000, "validation", perturbation=tracked, at=at),
        ]
    at = {"required_accuracy": 0.85, "yield": 0.95}
    noise = {"name": "mismatch", "parameters": "all"}
    records.append(Record(run, "tolerated_zeta", 0.06 / fall, 1000, perturbation=noise, at=at))
    return [*records, Record(run, "best_epoch", 8, 6_000, "validation")]


EPS = 8 / 255
_PGD = {
    "eot": 1, "loss": "ce", "surrogate": "", "surrogate_settings": [], "survivors_only": True, "step": 0.0, "restarts": 1,
    "random_start": True, "momentum": 0.0,
}  # fmt: skip
MEMBERS = (
    ("random-noise(kind=corner, draws=10)", 0.04, 0.0, 9.6),
    ("pgd(steps=20)", 0.42, 9.1, 1.0),
    ("apgd(steps=20, loss=dlr)", 0.03, 6.3, 1.4),
    ("apgd(steps=20, loss=margin, surrogate=atan)", 0.05, 5.2, 1.1),
    ("rate-gradient(steps=20, rule=rga)", 0.01, 4.9, 1.0),
    ("square(queries=1000)", 0.01, 0.0, 212.0),
)


def attacked(
    run: str,
    clean: float,
    left: float,
    *,
    n: int = 1000,
    eps: float = EPS,
    norm: str = "linf",
    masked: bool = False,
    checks: bool = True,
    ensemble: bool = True,
    seeds: int = 1,
) -> list[Record]:
    """Records of attacks on inputs: PGD with 20 steps leaves `left`; of a `masked` network the gradients lead nowhere and queries do."""
    found: list[Record] = []

    def share(value: float) -> float:
        return round(n * min(max(value, 0.0), clean)) / n

    def attack(
        name: str, value: float, gradients: float, asked: float, seed: int, at_eps: float = eps, zero: float = 0.0, **settings
    ) -> None:
        perturbation = {"name": name, "eps": at_eps, "norm": norm, **settings}
        values = {"accuracy": share(value), "gradient_evaluations": gradients, "queries": asked}
        values |= {"zero_gradient_share": zero} if gradients else {}
        found.extend(Record(run, metric, v, n, perturbation=perturbation, seed=seed) for metric, v in values.items())
        gap = share(left) - share(value)
        here, there = max(gap, 0.0) + (0.002 if abs(gap) > 0.01 else 0.0), max(-gap, 0.0)
        if checks and name not in ("ensemble", "random-noise") and not (name == "pgd" and (at_eps, settings["steps"]) == (eps, 20)):
            pair = {"fooled_only_here": here, "fooled_only_by_reference": there}
            found.extend(Record(run, m, v, n, perturbation=perturbation, at={"eps": eps}, seed=seed) for m, v in pair.items())

    for seed in range(seeds):
        zero = 0.31 if masked else 0.0004
        lost = clean - left
        steps_curve = {1: 0.55, 2: 0.75, 5: 0.93, 10: 0.985, 20: 1.0, 40: 1.004} if checks else {20: 1.0}
        for steps, part in steps_curve.items():
            attack("pgd", clean - part * lost + 0.002 * seed, 0.6 * steps, 2.0, seed, zero=zero, **_PGD, steps=steps)
        square = left - 0.12 if masked else left + 0.11
        if checks:
            attack("fgsm", left + (-0.04 if masked else 0.08), 1.0, 2.0, seed, eot=1, loss="ce", surrogate="", surrogate_settings=[])
            for factor in (0.25, 0.5, 2, 4, 8, 16, 31.875):
                far = clean - lost * factor**0.8
                value = max(far, 0.9 * left) if masked else far
                attack("pgd", value, 9.0, 2.0, seed, eps * factor, zero=zero, **_PGD, steps=20)
            for kind, draws, value in (("uniform", 1, clean - 0.005), ("corner", 1, clean - 0.02), ("corner", 50, clean - 0.06)):
                attack("random-noise", value, 0.0, 1.0 + 0.9 * draws, seed, eot=1, kind=kind, draws=draws)
            only = {"name": "random-noise", "eps": eps, "norm": norm, "eot": 1, "kind": "corner", "draws": 50}
            found.append(Record(run, "random_only", 0.06 if masked else 0.0, n, perturbation=only, seed=seed))
            attack("square", square, 0.0, 640.0, seed, eot=1, queries=1000, p_init=0.8, loss="margin", restarts=1)
            attack("transfer", left + 0.2, 0.0, 2.0, seed, eot=1, source="standard, seed 1", attack="pgd(steps=20)")
        if not ensemble:
            continue
        whole = {"name": "ensemble", "eps": eps, "norm": norm, "eot": 1, "steps": 20, "queries": 1000}
        parts = np.cumsum([part for _, part, _, _ in MEMBERS]) / sum(part for _, part, _, _ in MEMBERS)
        least = square - 0.01 if masked else left - 0.04
        for place, ((member, _, gradients, queries), part) in enumerate(zip(MEMBERS, parts, strict=True), start=1):
            values = {
                "surviving": share(clean - part * (clean - least)),
                "member_gradient_evaluations": gradients,
                "member_queries": queries,
            }
            perturbation = {**whole, "member": member}
            found.extend(Record(run, m, v, n, perturbation=perturbation, at={"place": place}, seed=seed) for m, v in values.items())
        settings = {k: v for k, v in whole.items() if k not in ("name", "eps", "norm")}
        attack("ensemble", least, 25.5, 226.0, seed, **settings)
    found.append(Record(run, "accuracy", share(clean), n))
    return found
