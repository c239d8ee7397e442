"""The same model written differently: what simplifiers make of it, other names, another order of nodes and operands."""
from __future__ import annotations

import random

import onnx

COMMUTATIVE = ("Add", "Mul", "Sum", "Max", "Min", "And", "Or")


def onnxsim(model: onnx.ModelProto, _: random.Random) -> onnx.ModelProto:
    import onnxsim as simplifier

    simplified, holds = simplifier.simplify(model)
    if not holds:
        raise ValueError("onnxsim's own check fails")
    return simplified


def onnxslim(model: onnx.ModelProto, _: random.Random) -> onnx.ModelProto:
    import onnxslim as simplifier

    return simplifier.slim(model)


def graphs(graph: onnx.GraphProto):
    """The graph and those nested in it, outermost first."""
    yield graph
    for node in graph.node:
        for a in node.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                yield from graphs(a.g)


def reads(node: onnx.NodeProto) -> set[str]:
    """Every name that the node or a graph nested in it mentions."""
    names = set(node.input)
    for a in node.attribute:
        if a.type == onnx.AttributeProto.GRAPH:
            for g in graphs(a.g):
                names.update(x for n in g.node for x in n.input)
                names.update(o.name for o in g.output)
    return names


def renamed(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    """Every node, tensor and symbolic size under another name, inputs and outputs too; their order stays."""
    names: dict[str, str] = {"": ""}
    letters = iter(rng.sample(range(10**6), 10**5))

    def new(old: str) -> str:
        if old not in names:
            names[old] = f"t{next(letters)}"
        return names[old]

    for g in graphs(model.graph):
        del g.value_info[:]
        g.name = "g"
        for t in [*g.initializer, *g.input, *g.output]:
            t.name = new(t.name)
        for t in g.sparse_initializer:
            t.values.name = new(t.values.name)
        for port in [*g.input, *g.output]:
            for d in port.type.tensor_type.shape.dim:
                if d.dim_param:
                    d.dim_param = new("dim " + d.dim_param)
        for node in g.node:
            node.name, node.doc_string = f"n{next(letters)}", ""
            del node.metadata_props[:]
            for ports in (node.input, node.output):
                ports[:] = [new(x) for x in ports]
    return model


def reordered(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    """The nodes in a random order that is as legal, and the operands of commutative operators swapped at random."""
    for g in graphs(model.graph):
        for node in g.node:
            if node.op_type in COMMUTATIVE and not node.domain:
                operands = list(node.input)
                rng.shuffle(operands)
                node.input[:] = operands
        maker = {o: i for i, node in enumerate(g.node) for o in node.output if o}
        needs = [{maker[x] for x in reads(node) if x in maker} for node in g.node]
        followers: list[list[int]] = [[] for _ in g.node]
        for i, ns in enumerate(needs):
            for n in ns:
                followers[n].append(i)
        ready, order = [i for i, ns in enumerate(needs) if not ns], []
        while ready:
            i = ready.pop(rng.randrange(len(ready)))
            order.append(g.node[i])
            for f in followers[i]:
                needs[f].discard(i)
                if not needs[f]:
                    ready.append(f)
        shuffled = [onnx.NodeProto.FromString(n.SerializeToString()) for n in order]
        del g.node[:]
        g.node.extend(shuffled)
    return model


def everything(model: onnx.ModelProto, rng: random.Random) -> onnx.ModelProto:
    return renamed(reordered(rng.choice((onnxsim, onnxslim))(model, rng), rng), rng)


VARIANTS = {"exported": lambda m, _: m, "onnxsim": onnxsim, "onnxslim": onnxslim, "renamed": renamed, "reordered": reordered, "everything": everything}


def vary(model: onnx.ModelProto, variant: str, seed: int) -> onnx.ModelProto:
    """Another spelling of `model`, which may be changed."""
    return VARIANTS[variant](model, random.Random(f"{seed} {variant}"))
