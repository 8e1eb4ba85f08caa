"""What a graph computes at the nominal parameters, without any box: the truth that graphs are held against networks by."""

from torch import Tensor

from noiseproof.certificates._graph import Add, Graph, Linear, MaxPool, Neurons, Readout, ReLU
from noiseproof.neurons.equation import initial_state, reference


def nominal_values(graph: Graph, x: Tensor) -> list[Tensor]:
    """Return what every node gives, [B, …] in a plain network, [T or 1, B, …] in a spiking one; thresholds and leaks at their low end."""
    values: list[Tensor] = []
    for node in graph.nodes:
        given = [values[i] for i in node.inputs]
        match node.op:
            case None:
                value = graph.inputs(x)[0]
            case Linear():
                value = _rows(graph, given[0], lambda rows, op=node.op: apply(op, rows))
            case ReLU():
                value = given[0].relu()
            case MaxPool():
                value = _rows(graph, given[0], node.op.apply)
            case Add():
                value = given[0] + given[1]
            case Neurons():
                value = spikes(graph, node.op, given[0])
            case Readout():
                value = read(graph, node.op, given[0])
        shape = value.shape[1:] if not graph.spiking or isinstance(node.op, Readout) else value.shape[2:]
        assert tuple(shape) == node.shape, (node, value.shape)
        values.append(value)
    return values


def nominal_logits(graph: Graph, x: Tensor) -> Tensor:
    """Return the logits [B, C] of x [B, …]."""
    return nominal_values(graph, x)[-1]


def apply(op: Linear, a: Tensor) -> Tensor:
    out = op.apply(a, op.weight)
    return out if op.bias is None else out + op.bias


def spikes(graph: Graph, op: Neurons, current: Tensor) -> Tensor:
    assert graph.steps is not None
    recurrent = None if op.recurrent is None else op.recurrent.weight
    return reference(current, initial_state(current[0], op.form), op.low, op.form, graph.steps, recurrent).spikes


def read(graph: Graph, op: Readout, s: Tensor) -> Tensor:
    assert graph.steps is not None
    currents = [apply(op.linear, now) for now in s.expand(graph.steps, *s.shape[1:])]
    u, potentials = 0.0 * currents[0], []
    for current in currents:
        u = (1.0 if op.how in ("rate", "sum") else op.leak) * u + current
        potentials.append(u)
    match op.how:
        case "rate":
            return u / graph.steps
        case "max":
            best = potentials[0]
            for potential in potentials[1:]:
                best = best.maximum(potential)
            return best
        case _:
            return u


def _rows(graph: Graph, a: Tensor, function) -> Tensor:
    return function(a.flatten(0, 1)).unflatten(0, a.shape[:2]) if graph.spiking else function(a)
