"""The chapters of the report, in reading order. A chapter appears only where there are records for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noiseproof.report import (
    attack_steps,
    certified,
    certified_figures,
    certified_ladders,
    curves,
    device_chips,
    device_statements,
    energy,
    figures,
    gain,
    input_attack_checks,
    input_attack_figures,
    input_attack_tables,
    input_attacks,
    layers,
    membranes,
    perturbations,
    slopes,
    spiking_activity,
    studies,
    sweep_figures,
    sweep_tables,
    sweeps,
    tables,
)
from noiseproof.report.budgets import budget_table, budget_words
from noiseproof.report.device_chips import Asked
from noiseproof.report.figures import Drawing
from noiseproof.report.numbers import count, counts, phrases
from noiseproof.report.reading import Method
from noiseproof.report.studies import Noise
from noiseproof.report.tables import Table

_MOST_LEVELS = 6  # of the distributions over chips: more would bury the page
_MOST_HEATS = 3  # heat maps side by side
_MOST_METHODS = 8  # in one figure, where there are sweeps with figures of their own


@dataclass(frozen=True)
class Section:
    """One chapter: what to know, pictures, tables; `folded` tables wait behind a click and are opened for print."""

    anchor: str
    title: str
    text: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    heats: tuple[Table, ...] = ()  # heat maps, side by side
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    short: str = ""  # in the list of chapters, where it follows the chapter that it belongs to


def sections(methods: Sequence[Method], asked: Asked, prefix: str = "") -> tuple[Section, ...]:
    """Return all chapters of one task that have something to show; `prefix` keeps their anchors apart from those of other tasks."""
    found: list[Section] = []
    noises = studies.noises(methods)
    for number, noise in enumerate(noises):
        found += _noise(noise, methods, asked.required, f"{prefix}noise-{number}", alone=len(noises) == 1)
    found += _grids(methods, f"{prefix}grid")
    found += _sweeps(methods, f"{prefix}sweep") + _matched(methods, f"{prefix}matched")
    found += _layers(methods, f"{prefix}layers") + _membranes(methods, f"{prefix}membranes")
    found += _spikes(methods, f"{prefix}spikes") + _energy(methods, f"{prefix}energy")
    found += _perturbations(methods, f"{prefix}perturbation") + _gain(methods, f"{prefix}gain")
    found += _input_attacks(methods, f"{prefix}inputs") + _checks(methods, f"{prefix}checks")
    found += _attacks(methods, f"{prefix}attack") + _landscapes(methods, f"{prefix}landscape")
    found += _boxes(methods, f"{prefix}box") + _devices(methods, asked, f"{prefix}devices")
    return (*found, *_training(methods, f"{prefix}training"))


def _noise(noise: Noise, methods: Sequence[Method], required: float | None, anchor: str, alone: bool) -> list[Section]:
    title = noise.family.title
    which = "" if alone else f" {title}"
    behind = f"{counts(noise.chip_counts, 'simulated chip')} per network and level, {counts(noise.samples, 'test sample')} per chip."
    settings = f" Settings: {phrases(noise.family.hidden)}." if noise.family.hidden else ""
    at = noise.headline
    drawn, left_out_methods = _drawn(methods)
    drawings = [figures.accuracy(noise, drawn, f"{anchor}-accuracy"), figures.yield_by_requirement(noise, drawn, at, f"{anchor}-yield")]
    if required is not None and len(noise.noisy_levels) > 1:  # of one level it is a single dot, which stands in the figure before
        drawings.append(figures.yield_by_level(noise, drawn, required, f"{anchor}-required"))
    levels = noise.noisy_levels
    most = _MOST_LEVELS if len(drawn) <= _MOST_METHODS else 1
    shown = levels if len(levels) <= most else levels[-most:] if most > 1 else (at,)
    which_levels = f"The {most} largest of {len(levels)} levels." if most > 1 else f"The middle one of {len(levels)} levels."
    left_out = (which_levels,) if len(shown) < len(levels) else ()
    name = noise.family.symbol
    return [
        Section(anchor, title, (behind + settings, *left_out_methods), tuple(drawings), folded=(tables.noise_table(noise, methods),)),
        Section(
            f"{anchor}-chips",
            f"Chip by chip:{which}" if which else "Chip by chip",
            ("Each panel has its own scale.", *left_out),
            tuple(figures.chips(noise, drawn, at, f"{anchor}-chips-{i}") for i, at in enumerate(shown)),
            short="" if alone else "chip by chip",
        ),
        Section(
            f"{anchor}-statistics",
            f"How sure is this?{which}",
            _tests_text(methods),
            tables=(tables.statistics_table(noise, methods, [at], f"Spread and tests at {noise.family.at(at) if name else title}"),),
            folded=(tables.statistics_table(noise, methods, levels, "Spread and tests at all levels"),) if len(levels) > 1 else (),
            short="" if alone else "how sure?",
        ),
    ]


def _drawn(methods: Sequence[Method]) -> tuple[Sequence[Method], tuple[str, ...]]:
    """Return the methods that figures have room for, of each sweep the middle one, and words that say so."""
    if len(methods) <= _MOST_METHODS:
        return methods, ()
    found, planes = sweeps.sweeps_and_planes(methods)
    middle = {part.middle.index for part in (*found, *planes)}
    drawn = [m for m in methods if m in sweeps.alone(methods) or m.index in middle]
    if len(drawn) == len(methods):
        return methods, ()
    return drawn, (f"{len(drawn)} of {len(methods)} methods are drawn: of each sweep the middle one. The tables have all.",)


def _grids(methods: Sequence[Method], anchor: str) -> list[Section]:
    """Return one chapter per noise that varies in two settings."""
    found = []
    for number, grid in enumerate(studies.grids(methods)):
        noises = [noise for _, noise in grid.slices]
        chips = counts([n for noise in noises for n in noise.chip_counts], "simulated chip")
        samples = counts([n for noise in noises for n in noise.samples], "test sample")
        settings = f" Settings: {phrases(grid.family.hidden)}." if grid.family.hidden else ""
        text = (
            f"{chips} per network and field, {samples} per chip. Fields: mean ± one standard deviation over all chips in %, beneath it the "
            f"worst chip; the stronger the shade, the higher the mean, on one scale for all methods.{settings}",
        )
        found.append(Section(f"{anchor}-{number}", grid.family.title, text, heats=tables.heat_maps(grid, methods)))
    return found


def _sweeps(methods: Sequence[Method], anchor: str) -> list[Section]:
    """Return one chapter per sweep over a number of the training, then one per pair of numbers."""
    found, planes = sweeps.sweeps_and_planes(methods)
    measured = {index for noise in studies.spoken_about(methods) for index, _ in noise.chips}
    others = [m for m in sweeps.alone(methods) if m.index in measured]
    chapters = []
    for number, sweep in enumerate(found):
        baseline = next((m for m in others if m.kind == "standard"), others[0] if others else None)
        text = ("Its epochs differ too, so that the number of gradient evaluations stays the same.",) if sweep.follows else ()
        drawings = _against(sweep, methods, others, baseline, f"{anchor}-{number}")
        if drawings:
            chapters.append(Section(f"{anchor}-{number}", sweep.title, text, tuple(drawings)))
    for number, plane in enumerate(planes):
        for place, noise in enumerate(studies.spoken_about(methods)):
            heats = [(at, table) for at in noise.noisy_levels if (table := sweep_tables.plane_table(plane, noise, at)) is not None]
            if not heats:
                continue
            # where all would be too many, the level that is spoken about
            shown = heats if len(heats) <= _MOST_HEATS else [h for h in heats if h[0] == noise.headline] or heats[:1]
            chapters.append(
                Section(
                    f"{anchor}-plane-{number}-{place}",
                    plane.title + (f", {noise.family.title}" if place else ""),
                    sweep_tables.plane_text(noise, others),
                    heats=tuple(table for _, table in shown),
                    folded=tuple(table for at, table in heats if (at, table) not in shown),
                )
            )
    return chapters


def _against(sweep: sweeps.Sweep, methods: Sequence[Method], others: Sequence[Method], baseline: Method | None, name: str) -> list[Drawing]:
    """Draw everything that was measured against the setting of a sweep."""
    noises = studies.spoken_about(methods)
    found = [sweep_figures.accuracy_by_setting(noise, sweep, baseline, f"{name}-noise-{i}") for i, noise in enumerate(noises)]
    for i, noise in enumerate(noises[:1]):
        swept = [m for m in sweep.methods if noise.values(m, noise.headline)]
        if len(others) > 1 and len(swept) > 1:
            found.insert(1, sweep_figures.against_others(noise, noise.headline, sweep, others, f"{name}-others-{i}"))
    attacks, landscapes = studies.attacks(methods), studies.landscapes(methods)
    found += [sweep_figures.attack_by_setting(attack, sweep, baseline, f"{name}-attack-{i}") for i, attack in enumerate(attacks)]
    found += [sweep_figures.slope_by_setting(study, sweep, baseline, f"{name}-slope-{i}") for i, study in enumerate(landscapes)]
    return [drawing for drawing in found if drawing is not None]


def _matched(methods: Sequence[Method], anchor: str) -> list[Section]:
    """Return one chapter per noise that networks were trained under at several levels, and chips measured under."""
    groups = sweeps.matched(methods)
    found = []
    for number, noise in enumerate(studies.noises(methods)):
        mine = [g for g in groups if g.is_of(noise.family)]
        mine = [g for g in mine if sum(any(noise.values(m, at) for at in noise.noisy_levels) for _, m in g.points) > 1]
        if not mine or len(noise.noisy_levels) < 2:
            continue
        name, without = f"{anchor}-{number}", [m for m in methods if sweeps.training_noise(m) is None and m in sweeps.alone(methods)]
        drawings = [sweep_figures.unmatched(noise, group, f"{name}-{i}") for i, group in enumerate(mine)]
        if any(len(sweep_figures.meeting(noise, group)) > 1 for group in mine):
            drawings.insert(0, sweep_figures.matched_only(noise, mine, without, f"{name}-only"))
        found.append(Section(name, f"Training noise and test noise: {noise.family.words}", drawings=tuple(drawings)))
    return found


def _tests_text(methods: Sequence[Method]) -> tuple[str, ...]:
    fewest = min(len(m.networks) for m in methods)
    return (
        f"Tests compare each method with {tables.comparisons(methods)}; p is two-sided. Beneath it stands p adjusted for all tests of that "
        "column of the table (Holm): of twenty true nulls one has a p below 0.05. Intervals are for one mean each, not simultaneous.",
        "The U test pools the chips of all networks, as the literature does; but chips of one network are not independent samples of a "
        "training method (pseudo-replication), so its p says that these networks differ, not that the methods do. The test by network "
        f"takes one number per training and can speak about methods: here it has {count(fewest, 'network')} per method"
        + (" or more." if any(len(m.networks) > fewest for m in methods) else "."),
        "The interval of the mean is about chips like these, for these networks and test samples. “Chip std” is the spread between the "
        "chips of one network, “network std” that between trainings: of the networks' means, less what finitely many chips add to it.",
    )


def _layers(methods: Sequence[Method], anchor: str) -> list[Section]:
    found, drawn = layers.studies(methods), _drawn(methods)[0]
    if not found:
        return []
    text = ("The noise acts in one layer, all others are as they were trained: chip i has there what it has with noise in all layers.",)
    drawings = tuple(layers.drawing(study, drawn, f"{anchor}-{i}") for i, study in enumerate(found))
    return [Section(anchor, "Layer by layer", text, drawings, folded=tuple(layers.table(study, methods) for study in found))]


def _membranes(methods: Sequence[Method], anchor: str) -> list[Section]:
    found, drawn = membranes.studies(methods), _drawn(methods)[0]
    if not found:
        return []
    text = ("Of all units, steps and samples. Near its threshold, a unit spikes or does not by a small change of the weights.",)
    drawings = tuple(membranes.drawing(study, drawn, f"{anchor}-{i}") for i, study in enumerate(found))
    return [Section(anchor, "Membrane potentials", text, drawings, tables=(membranes.table(found, methods),))]


def _spikes(methods: Sequence[Method], anchor: str) -> list[Section]:
    drawings, folded = spiking_activity.drawings(methods, _drawn(methods)[0], anchor)
    return [Section(anchor, "Spikes and steps", (), drawings, folded=folded)] if drawings else []


def _energy(methods: Sequence[Method], anchor: str) -> list[Section]:
    if not energy.prices(methods):
        return []
    drawings, folded = energy.drawings(methods, _drawn(methods)[0], anchor)
    return [Section(anchor, "Energy of one inference", energy.text(methods), drawings, tables=(energy.table(methods),), folded=folded)]


def _perturbations(methods: Sequence[Method], anchor: str) -> list[Section]:
    """Return one chapter per attack whose perturbations were followed through the network."""
    found = []
    for number, (attack, label) in enumerate(perturbations.attacks(methods).items()):
        name, title = f"{anchor}-{number}", f"How far perturbations get: {label}"
        drawings, folded = perturbations.drawings(methods, _drawn(methods)[0], attack, name)
        found.append(Section(name, title, perturbations.TEXT if number == 0 else (), drawings, folded=folded))
    return found


def _gain(methods: Sequence[Method], anchor: str) -> list[Section]:
    table = gain.table(methods)
    if table is None:
        return []
    drawings = gain.drawings(methods, _drawn(methods)[0], anchor)
    return [Section(anchor, "Gain of perturbations", gain.text(methods), drawings, folded=(table,))]


def _attacks(methods: Sequence[Method], anchor: str) -> list[Section]:
    found = studies.attacks(methods)
    if not found:
        return []
    text = (
        "The search moves every attacked weight inside its set, of size ζ relative to the weight, towards the worst answer: one "
        "perturbation for all test samples, as one bad chip would be. What it finds is no bound: a stronger search may find worse. "
        "Objectives are shown apart.",
    )
    drawn, steps = _drawn(methods)[0], attack_steps.studies(methods)
    drawings = [curves.attack(study, drawn, f"{anchor}-{i}") for i, study in enumerate(found)]
    drawings += [attack_steps.drawing(study, drawn, f"{anchor}-steps-{i}") for i, study in enumerate(attack_steps.shown(steps))]
    folded = [tables.attack_table(s, methods) for s in found] + ([attack_steps.table(steps, methods)] if steps else [])
    return [Section(f"{anchor}s", "Attack on the weights", text, tuple(drawings), folded=tuple(folded))]


def _input_attacks(methods: Sequence[Method], anchor: str) -> list[Section]:
    """Return two chapters per norm: the least that all attacks leave, then attack by attack."""
    chapters, found, drawn = [], input_attacks.studies(methods), _drawn(methods)[0]
    for number, study in enumerate(found):
        which = f" ({input_attacks.norm_words(study.norm)})" if len(found) > 1 else ""
        name, at = f"{anchor}-{number}", study.headline
        worst = input_attack_tables.worst_table(study, methods)
        members = [table for eps in study.asked for table in input_attack_tables.member_tables(study, methods, eps)]
        matrices = {eps: input_attack_tables.attack_table(study, methods, eps) for eps in study.asked}
        drawings = [
            input_attack_figures.by_eps(study, drawn, f"{name}-eps"),
            input_attack_figures.clean_and_robust(study, drawn, at, f"{name}-clean"),
            *input_attack_figures.survivors(study, drawn, at, f"{name}-members"),
            input_attack_figures.boxes(study, drawn, at, f"{name}-boxes"),
            *(input_attack_figures.by_steps(study, g, drawn, at, f"{name}-steps-{i}") for i, g in enumerate(study.along_steps(at))),
        ]
        chapters += [
            Section(
                name, f"Attacks on the inputs{which}", input_attack_tables.words(study, methods), tables=(worst,) if worst.rows else ()
            ),
            Section(
                f"{name}-each",
                f"Attack by attack{which}",
                (),
                tuple(drawing for drawing in drawings if drawing is not None),
                tables=(matrices.pop(at),),
                folded=(*matrices.values(), *members, input_attack_tables.numbers_table(study, methods)),
                short="attack by attack",
            ),
        ]
    return chapters


def _checks(methods: Sequence[Method], anchor: str) -> list[Section]:
    """Return the chapter that says whether the figures under attack can be trusted; what fails is open, the rest waits behind a click."""
    found = input_attack_checks.checklists(methods)
    if not found:
        return []
    text = (
        "Where gradients are hidden, an attack that follows them fails though the network is not robust. The first five checks are those "
        "of Athalye et al. (2018), the others follow how the attacks ran; each is decided by a test at 95 % over samples. "
        "A pass is no proof of robustness: it says that this attacker was not led astray.",
        *(
            ("The outcome is the gravest of all networks; the sentence is about the first network of that outcome, the numbers are means.",)
            if any(len(check.verdicts) > 1 for one in found for check in one.checks)
            else ()
        ),
    )
    failing = [one for one in found if one.of("fail")]
    return [
        Section(
            anchor,
            "Can the figures under attack be trusted?",
            text,
            tables=(input_attack_tables.overview(found), *map(input_attack_tables.checks_table, failing)),
            folded=tuple(input_attack_tables.checks_table(one) for one in found if one not in failing),
            short="can they be trusted?",
        )
    ]


def _boxes(methods: Sequence[Method], anchor: str) -> list[Section]:
    """Return one chapter per shape of certified boxes."""
    found, drawn = certified_ladders.studies(methods), _drawn(methods)[0]
    chapters = []
    for number, boxes in enumerate(found):
        which = f" ({boxes.title})" if len(found) > 1 else ""
        name = f"{anchor}-{number}"
        drawings = [certified_figures.overview(boxes, drawn, name)]
        drawings += [certified_figures.ladder(boxes, m, f"{name}-ladder-{m.index}") for m in drawn]
        shown, folded = certified.shown_and_folded(boxes, methods)
        chapters.append(
            Section(
                name,
                f"What no chip in the box can do{which}",
                certified.words(boxes),
                tuple(drawing for drawing in drawings if drawing is not None),
                tables=(shown,),
                folded=folded,
            )
        )
    return chapters


def _devices(methods: Sequence[Method], asked: Asked, anchor: str) -> list[Section]:
    """Return the chapter on all chips, which belongs to certified boxes."""
    boxes = device_statements.certificates_of(methods)
    if not boxes:
        return []
    chips = device_chips.chips_of(methods, asked)
    middle, (of_boxes, folded) = device_chips.middle(chips), device_statements.shown_and_folded(boxes, chips, asked)
    shown = [*([device_chips.chips_table(middle, asked)] if chips else []), of_boxes]
    folded = ((device_chips.chips_table(chips, asked, at="at all levels"),) if len(chips) > len(middle) else ()) + folded
    text = device_statements.text(chips, boxes, asked)
    return [Section(anchor, "What at most one chip in so many will do", text, tables=tuple(shown), folded=folded)]


def _landscapes(methods: Sequence[Method], anchor: str) -> list[Section]:
    found = studies.landscapes(methods)
    if not found:
        return []
    text = (
        "The loss at θ + α·v, where v is random and proportional to the weights. The slope is the mean of |ΔL|/Δα between "
        "neighbouring points.",
    )
    drawings = tuple(curves.landscape(study, _drawn(methods)[0], f"{anchor}-{i}") for i, study in enumerate(found))
    return [Section(anchor, "Loss landscape", text, drawings, tables=tuple(slopes.slope_table(s, methods) for s in found))]


def _training(methods: Sequence[Method], anchor: str) -> list[Section]:
    found, trainings, budgets = studies.courses(methods), tables.training_table(methods), budget_table(methods)
    if not found and not trainings.rows and not any(cell.value is not None for row in budgets.rows for cell in row[4:]):
        return []
    text = (" ".join((*budget_words(methods), "The best epoch is chosen on validation data; nothing is chosen on test data.")),)
    drawings = tuple(curves.course(study, _drawn(methods)[0], f"{anchor}-{i}") for i, study in enumerate(found))
    shown = (budgets,) if budgets.rows else ()
    return [Section(anchor, "Training", text, drawings, tables=shown, folded=(trainings,) if trainings.rows else ())]
