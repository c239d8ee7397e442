//! `convc inspect`

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use convc::{
    ir::{Graph, Kind},
    ops::macs,
};
use convc_runtime::{
    Bindings, Constant, Dim, Fact, Tensor,
    ops::InferCx,
    plan::{Action, Plan, Port},
};
use serde_json::json;

use super::{
    Failure,
    model::{self, LimitArgs, Loaded, SizeArgs, describe},
    say::{print, print_json, visible},
};

/// Print a model's inputs, outputs, operators, parameters and work
#[derive(Args)]
pub(crate) struct Inspect {
    /// The model, .onnx or .convc
    model: PathBuf,
    #[command(flatten)]
    sizes: SizeArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

/// What all operators of one name add up to.
struct Group {
    count: usize,
    macs: Dim,
    /// How many of them have a size that is not known.
    unknown: usize,
}

#[derive(Default)]
struct Summary {
    format: String,
    inputs: Vec<(String, String)>,
    outputs: Vec<(String, String)>,
    groups: BTreeMap<String, Group>,
    parameters: u64,
    constant_bytes: u64,
    file_bytes: u64,
}

impl Summary {
    fn constant(&mut self, c: &Constant) {
        if c.dtype().is_float() {
            self.parameters += c.len() as u64;
        }
        self.constant_bytes += c.bytes().len() as u64;
    }

    fn operator(&mut self, name: &str, work: Option<Dim>) {
        let group =
            self.groups.entry(name.to_owned()).or_insert_with(|| Group { count: 0, macs: Dim::from(0), unknown: 0 });
        group.count += 1;
        match work {
            Some(d) => group.macs = &group.macs + &d,
            None => group.unknown += 1,
        }
    }

    fn graph(&mut self, graph: &Graph) {
        for id in graph.nodes() {
            let node = graph.node(id);
            match &node.kind {
                Kind::Input => {}
                Kind::Constant(c) => self.constant(c),
                Kind::Op(op) => {
                    let inputs: Vec<Option<&Fact>> =
                        node.operands().iter().map(|o| o.and_then(|v| graph.fact(v))).collect();
                    let outputs: Option<Vec<&Fact>> = node.facts().iter().map(Option::as_ref).collect();
                    self.operator(op.name(), outputs.and_then(|o| macs(op, &inputs, &o)));
                }
                Kind::If { then_branch, else_branch } => {
                    self.operator("If", Some(Dim::from(0)));
                    self.graph(&then_branch.graph);
                    self.graph(&else_branch.graph);
                }
                Kind::Opaque(o) => {
                    let dot = if o.domain.is_empty() { "" } else { "." };
                    self.operator(&format!("{}{dot}{}", o.domain, o.op_type), None);
                }
            }
        }
    }

    fn plan(&mut self, plan: &Plan, inputs: Vec<Option<Fact>>, next: &mut u32) {
        let mut facts: Vec<Option<Fact>> = vec![None; plan.slots];
        for (port, fact) in plan.inputs.iter().zip(inputs) {
            facts[port.slot.index()] = fact;
        }
        for (slot, c) in &plan.constants {
            self.constant(c);
            let small = c.len() <= Fact::MAX_KNOWN;
            let tensor = small.then(|| c.to_tensor().ok()).flatten();
            facts[slot.index()] =
                Some(tensor.map_or_else(|| Fact::fixed(c.dtype(), c.shape()), |t: Tensor| Fact::of(&t)));
        }
        for step in &plan.instructions {
            let operands: Vec<Option<&Fact>> =
                step.inputs.iter().map(|s| s.and_then(|s| facts[s.index()].as_ref())).collect();
            let known = step.inputs.iter().zip(&operands).all(|(slot, fact)| slot.is_none() || fact.is_some());
            match &step.action {
                Action::Op(op) => {
                    let mut fresh = || {
                        *next += 1;
                        Dim::symbol(format!("?{next}"))
                    };
                    let inferred = known.then(|| op.infer(&operands, &mut InferCx::new(&mut fresh)).ok()).flatten();
                    let work = inferred.as_ref().and_then(|f| macs(op, &operands, &f.iter().collect::<Vec<_>>()));
                    self.operator(op.name(), work);
                    for (slot, fact) in step.outputs.iter().zip(inferred.into_iter().flatten()) {
                        if let Some(slot) = slot {
                            facts[slot.index()] = Some(fact);
                        }
                    }
                }
                Action::If { then_branch, else_branch } => {
                    self.operator("If", Some(Dim::from(0)));
                    let captured: Vec<Option<Fact>> = operands.iter().skip(1).map(|f| f.cloned()).collect();
                    self.plan(then_branch, captured.clone(), next);
                    self.plan(else_branch, captured, next);
                }
            }
        }
    }
}

pub(crate) fn run(args: &Inspect) -> Result<(), Failure> {
    let mut s = Summary {
        file_bytes: std::fs::metadata(&args.model).map_err(|e| Failure::io(&args.model, &e))?.len(),
        ..Summary::default()
    };
    let symbolic = |fact: Option<&Fact>| fact.map_or_else(|| "?".to_owned(), ToString::to_string);
    match model::load(&args.model, &args.limits.limits())? {
        Loaded::Onnx(mut model) => {
            args.sizes.bind(&mut model.graph)?;
            let graph = &model.graph;
            s.format = format!("ONNX, opset {}, IR version {}", model.opset, model.ir_version);
            let name = |v| graph.value_name(v).unwrap_or_default().to_owned();
            s.inputs = graph.inputs().into_iter().map(|v| (name(v), symbolic(graph.fact(v)))).collect();
            let fact = |o: &convc::ir::Output| symbolic(graph.fact(o.value).or(o.declared.as_ref()));
            s.outputs = graph.outputs().iter().map(|o| (o.name.clone(), fact(o))).collect();
            s.graph(graph);
        }
        Loaded::Plan(mut plan) => {
            let (bindings, _) = args.sizes.resolve(&plan.inputs)?;
            bind(&mut plan, &bindings);
            let facts = |p: &Port| p.shape.clone().map(|shape| Fact::new(p.dtype, shape));
            let ports =
                |p: &[Port]| p.iter().map(|p| (p.name.clone(), describe(p.dtype, p.shape.as_deref()))).collect();
            s.format = "plan".to_owned();
            (s.inputs, s.outputs) = (ports(&plan.inputs), ports(&plan.outputs));
            s.plan(&plan, plan.inputs.iter().map(facts).collect(), &mut 0);
        }
    }
    if args.json { s.json(&args.model) } else { print(&visible(&s.text())) }
}

fn bind(plan: &mut Plan, bindings: &Bindings) {
    let values = bindings.iter().map(|(s, &n)| (s.clone(), Dim::from(n))).collect();
    for d in plan.inputs.iter_mut().chain(&mut plan.outputs).flat_map(|p| p.shape.iter_mut().flatten()) {
        *d = d.substitute(&values);
    }
}

/// A number of multiply-accumulates as JSON: an integer, or an expression over symbols.
fn number(d: &Dim) -> serde_json::Value {
    d.as_fixed().map_or_else(|| json!(d.to_string()), |n| json!(n))
}

/// The same for people.
fn short(d: &Dim) -> String {
    let Some(n) = d.as_fixed() else { return d.to_string() };
    let n = n as f64;
    match n {
        n if n >= 1e9 => format!("{:.3} G", n / 1e9),
        n if n >= 1e6 => format!("{:.3} M", n / 1e6),
        n => format!("{n}"),
    }
}

impl Summary {
    fn total(&self) -> (Dim, usize) {
        let sum = self.groups.values().fold(Dim::from(0), |sum, g| &sum + &g.macs);
        (sum, self.groups.values().map(|g| g.unknown).sum())
    }

    /// The names of operators, the most frequent first.
    fn sorted(&self) -> Vec<(&String, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, g)| std::cmp::Reverse(g.count));
        groups
    }

    fn json(&self, path: &Path) -> Result<(), Failure> {
        let ports =
            |p: &[(String, String)]| -> Vec<_> { p.iter().map(|(n, t)| json!({ "name": n, "type": t })).collect() };
        let operators: serde_json::Map<_, _> = self
            .sorted()
            .into_iter()
            .map(|(n, g)| (n.clone(), json!({ "count": g.count, "macs": number(&g.macs), "unknown": g.unknown })))
            .collect();
        let (macs, unknown) = self.total();
        print_json(
            "inspect",
            json!({
                "model": path.display().to_string(),
                "format": self.format,
                "inputs": ports(&self.inputs),
                "outputs": ports(&self.outputs),
                "nodes": self.groups.values().map(|g| g.count).sum::<usize>(),
                "operators": operators,
                "parameters": self.parameters,
                "macs": number(&macs),
                "nodes_of_unknown_work": unknown,
                "constant_bytes": self.constant_bytes,
                "file_bytes": self.file_bytes,
            }),
        )
    }

    fn text(&self) -> String {
        let mut text = format!("format      {}\n", self.format);
        for (what, ports) in [("input", &self.inputs), ("output", &self.outputs)] {
            for (name, t) in ports {
                text.push_str(&format!("{what:<10}  {name}  {t}\n"));
            }
        }
        let (macs, unknown) = self.total();
        text.push_str(&format!("parameters  {}\n", short(&Dim::from(self.parameters as i64))));
        text.push_str(&format!("MACs        {}", short(&macs)));
        text.push_str(&if unknown > 0 {
            format!(" and {unknown} nodes whose work is not known\n")
        } else {
            "\n".into()
        });
        text.push_str(&format!("constants   {} bytes\nfile        {} bytes\n", self.constant_bytes, self.file_bytes));
        text.push_str(&format!("nodes       {}\n\n", self.groups.values().map(|g| g.count).sum::<usize>()));
        text.push_str(&format!("{:>7}  {:>12}  operator\n", "count", "MACs"));
        for (name, g) in self.sorted() {
            let work = match (g.macs.as_fixed(), g.unknown) {
                (Some(0), 0) => String::new(),
                (Some(0), _) => "?".to_owned(),
                _ => short(&g.macs),
            };
            text.push_str(&format!("{:>7}  {work:>12}  {name}\n", g.count));
        }
        text
    }
}
