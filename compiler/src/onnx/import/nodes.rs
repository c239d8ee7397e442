//! The nodes of a graph or function, one by one.

use std::collections::{BTreeSet, HashMap};

use convc_runtime::{Constant, Dim, Fact, Tensor};
use onnx_protobuf::{AttributeProto, GraphProto, Message, NodeProto, attribute_proto::AttributeType};

use super::{
    Env, Importer, Names, OnnxError, Problem, Severity, domain_of,
    interface::{Declared, declared},
    label, plain, shown, visible,
};
use crate::{
    ir::{Graph, Kind, Opaque, Origin, Value},
    onnx::{attribute_value, names::free_in_node, tensor::TensorFault},
    ops::{self, ImportError, NodeReader},
};

/// One node on its way in.
pub(super) struct Site<'n> {
    /// The node.
    pub(super) node: &'n NodeProto,
    /// Its domain as convc spells it.
    pub(super) domain: &'n str,
    /// The version of its operator set.
    pub(super) opset: Option<i64>,
    /// What traces call it.
    pub(super) label: String,
}

impl Site<'_> {
    /// A problem of this node.
    pub(super) fn problem(&self, severity: Severity, problem: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem {
            severity,
            place: format!("node {}", shown(&self.label)),
            op_type: plain(&self.node.op_type),
            domain: plain(self.domain),
            opset: self.opset,
            problem: visible(problem.into()),
            help: help.into(),
        }
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> Problem {
        self.problem(Severity::Error, problem, "")
    }
}

impl<'a> Importer<'a> {
    /// Adds `list` to the graph, in topological order whatever its own.
    pub(super) fn nodes(
        &mut self,
        graph: &mut Graph,
        names: &mut Names,
        list: &[NodeProto],
        env: &Env<'_>,
    ) -> Result<(), OnnxError> {
        let sites: Vec<Site<'_>> = list
            .iter()
            .enumerate()
            .map(|(i, node)| {
                let domain = domain_of(&node.domain);
                let opset = env.opsets.get(domain).copied();
                Site { node, domain, opset, label: label(&env.prefix, i, &node.name, &node.op_type) }
            })
            .collect();
        let mut producers: HashMap<&str, usize> = HashMap::new();
        for (i, site) in sites.iter().enumerate() {
            let n = &site.node;
            self.count_nodes(1 + (n.input.len() + n.output.len() + n.attribute.len()) / 64)?;
            for out in n.output.iter().filter(|o| !o.is_empty()) {
                if names.contains_key(out) || producers.insert(out, i).is_some() {
                    let what = format!("defines value {}, which is defined already", shown(out));
                    self.fail(site.problem(Severity::Error, what, "rename one of them"))?;
                }
            }
        }
        let order = self.order(graph, names, &sites, &producers)?;
        for i in order {
            if let Some(site) = sites.get(i) {
                self.node(graph, names, site, env)?;
            }
        }
        Ok(())
    }

    /// The nodes in an order in which each comes behind those it uses.
    fn order(
        &mut self,
        graph: &mut Graph,
        names: &mut Names,
        sites: &[Site<'_>],
        producers: &HashMap<&str, usize>,
    ) -> Result<Vec<usize>, OnnxError> {
        let mut waits: Vec<usize> = vec![0; sites.len()];
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); sites.len()];
        for (i, site) in sites.iter().enumerate() {
            let used = site.node.input.iter().map(String::as_str).chain(free_in_node(site.node));
            let mut sources = BTreeSet::new();
            for name in used.filter(|n| !n.is_empty()) {
                if names.contains_key(name) {
                    continue;
                }
                match producers.get(name) {
                    Some(&p) => drop(sources.insert(p)),
                    None => {
                        let what = format!("uses value {}, which nothing defines", shown(name));
                        self.fail(site.problem(Severity::Error, what, "add its node, or list it as an input"))?;
                        names.insert(name.to_owned(), Some(unknown(graph, name)));
                    }
                }
            }
            for p in sources {
                if let (Some(w), Some(u)) = (waits.get_mut(i), users.get_mut(p)) {
                    *w += 1;
                    u.push(i);
                }
            }
        }
        let mut ready: BTreeSet<usize> = (0..sites.len()).filter(|&i| waits.get(i) == Some(&0)).collect();
        let mut order = Vec::with_capacity(sites.len());
        while let Some(i) = ready.pop_first() {
            order.push(i);
            for &user in users.get(i).map(Vec::as_slice).unwrap_or_default() {
                if let Some(w) = waits.get_mut(user) {
                    *w -= 1;
                    if *w == 0 {
                        ready.insert(user);
                    }
                }
            }
        }
        if order.len() < sites.len() {
            let done: BTreeSet<usize> = order.iter().copied().collect();
            let left: Vec<usize> = (0..sites.len()).filter(|i| !done.contains(i)).collect();
            if let Some(site) = left.first().and_then(|&i| sites.get(i)) {
                let what = format!("lies on or behind a cycle, as {} nodes do", left.len());
                self.fail(site.problem(Severity::Error, what, "a graph must have no cycles"))?;
            }
            for i in left {
                for out in sites.get(i).iter().flat_map(|s| &s.node.output).filter(|o| !o.is_empty()) {
                    names.insert(out.clone(), Some(unknown(graph, out)));
                }
            }
        } else if let Some(site) = order.windows(2).find(|w| w[0] > w[1]).and_then(|w| sites.get(w[1])) {
            let what = "comes before a node that it uses, which ONNX does not allow";
            self.problems.push(site.problem(Severity::Note, what, "the nodes are read in topological order"));
        }
        Ok(order)
    }

    /// The value that `name` stands for; `None` for the empty name and for an input that the caller leaves out.
    fn operand(names: &Names, name: &str) -> Option<Value> {
        names.get(name).copied().flatten()
    }

    fn node(&mut self, graph: &mut Graph, names: &mut Names, site: &Site<'_>, env: &Env<'_>) -> Result<(), OnnxError> {
        let node = site.node;
        let key = (site.domain.to_owned(), node.op_type.clone(), node.overload.clone());
        let native = ops::reader(site.domain, &node.op_type);
        if let Some(&f) = self.functions.get(&key)
            && (native.is_none() || site.domain.is_empty())
        {
            return self.call(graph, names, site, env, f, key);
        }
        if site.domain.is_empty() && site.opset.is_none() {
            let help = "add an opset_import for the default domain";
            self.fail(site.problem(Severity::Error, "the model imports no operator set for it", help))?;
        }
        let operands: Vec<Option<Value>> = node.input.iter().map(|n| Self::operand(names, n)).collect();
        let believed = self.beliefs.any(&operands);
        let result = self.try_node(graph, names, site, env, native, &operands);
        let values = match result {
            Ok(Ok(values)) => values,
            Ok(Err(Refusal::Limit(e))) => return Err(e),
            Ok(Err(Refusal::Import(e))) => {
                // Where a type is unknown or only believed, what does not fit may be the declaration and not the node.
                let unknown = believed || operands.iter().flatten().any(|v| graph.fact(*v).is_none());
                let (invalid, reason) = match e {
                    ImportError::Invalid(reason) => (!unknown, reason),
                    ImportError::Unsupported(reason) => (false, reason),
                };
                if invalid {
                    self.fail(site.error(&reason))?;
                } else {
                    let help = "convc optimize carries it through; run and compile refuse it";
                    self.problems.push(site.problem(Severity::Unsupported, &reason, help));
                }
                self.opaque(graph, names, site, env, operands, reason)?
            }
            Err(e) => return Err(e),
        };
        // An operand that the node ignores says nothing of its results.
        self.beliefs.follow(graph, &values);
        for (i, out) in node.output.iter().enumerate().filter(|(_, o)| !o.is_empty()) {
            match values.get(i) {
                Some(&v) => self.bind(graph, names, env, out, v),
                None => {
                    let what = format!("has an output {}, and the operator gives {} only", shown(out), values.len());
                    self.fail(site.error(what))?;
                    let v = unknown(graph, out);
                    names.insert(out.clone(), Some(v));
                }
            }
        }
        Ok(())
    }

    /// Gives the value its name, and its stated type where convc knows none.
    fn bind(&mut self, graph: &mut Graph, names: &mut Names, env: &Env<'_>, out: &str, v: Value) {
        if graph.value_name(v).is_none() {
            graph.set_value_name(v, format!("{}{out}", env.prefix));
        }
        if graph.fact(v).is_none()
            && let Some(info) = env.value_info.get(out)
        {
            let mut nameless = |axis: usize| Dim::symbol(format!("?{out}_{axis}"));
            if let Ok(Declared::Tensor(fact)) = declared(info, &mut nameless) {
                graph.set_fact(v, Some(fact));
                self.beliefs.values.insert(v);
            }
        }
        names.insert(out.to_owned(), Some(v));
    }

    fn try_node(
        &mut self,
        graph: &mut Graph,
        names: &Names,
        site: &Site<'_>,
        env: &Env<'_>,
        native: Option<ops::Reader>,
        operands: &[Option<Value>],
    ) -> Result<Result<Vec<Value>, Refusal>, OnnxError> {
        let node = site.node;
        let attributes = match self.attributes(site, env) {
            Ok(a) => a,
            Err(e) => return Ok(Err(e)),
        };
        if site.domain.is_empty() && node.op_type == "If" {
            return self.branches(graph, names, site, env, operands, &attributes);
        }
        let mut values = Vec::with_capacity(attributes.len());
        let mut graphs = None;
        for a in &attributes {
            let source = &mut self.source;
            let mut tensor = |t: &onnx_protobuf::TensorProto| {
                source.constant(t).map_err(|e| match e {
                    TensorFault::Bad(problem) => {
                        ImportError::Invalid(format!("attribute {} {problem}", plain(&a.name)))
                    }
                    TensorFault::Limit(what, needed, limit) => ImportError::Invalid(format!(
                        "attribute {} needs {needed} {what}, the limit is {limit}",
                        plain(&a.name)
                    )),
                })
            };
            if site.domain.is_empty() && node.op_type == "Constant" {
                continue;
            }
            match attribute_value(a, &mut tensor) {
                Ok(v) => values.push((a.name.clone(), v)),
                Err(e) => graphs = graphs.or(Some(e)),
            }
        }
        if site.domain.is_empty() && node.op_type == "Constant" {
            return Ok(self.constant(&attributes).map(|c| {
                let v = graph.add_constant(c);
                graph.annotate(v.node, format!("{}{}", env.prefix, node.name), vec![site.label.as_str().into()]);
                vec![v]
            }));
        }
        let Some(native) = native else {
            return Ok(Err(ImportError::Unsupported(not_executed(site.domain, &node.op_type)).into()));
        };
        if let Some(e) = graphs {
            return Ok(Err(e.into()));
        }
        let outputs = node.output.iter().map(|o| !o.is_empty()).collect();
        let opset = site.opset.unwrap_or(1);
        let mut reader = NodeReader::new(graph, &node.op_type, opset, operands.to_vec(), outputs, values);
        let result = native(&mut reader);
        let added = reader.added().to_vec();
        match result {
            Ok(values) => {
                let origin: Origin = site.label.as_str().into();
                for id in added {
                    graph.annotate(id, format!("{}{}", env.prefix, node.name), vec![origin.clone()]);
                }
                Ok(Ok(values))
            }
            Err(e) => {
                for id in added.into_iter().rev() {
                    graph.remove(id);
                }
                Ok(Err(e.into()))
            }
        }
    }

    /// The node's attributes, those of the surrounding function put in.
    pub(super) fn attributes(&mut self, site: &Site<'_>, env: &Env<'_>) -> Result<Vec<AttributeProto>, Refusal> {
        let mut list = Vec::with_capacity(site.node.attribute.len());
        let mut seen = BTreeSet::new();
        for a in &site.node.attribute {
            if !seen.insert(a.name.as_str()) {
                return Err(ImportError::Invalid(format!("attribute {} is given twice", plain(&a.name))).into());
            }
            if let Some(a) = substituted(a, env)? {
                if env.attributes.is_some() {
                    let size = usize::try_from(a.compute_size()).unwrap_or(usize::MAX);
                    self.source.copy(size).map_err(|e| Refusal::Limit(e.at(format!("node {}", shown(&site.label)))))?;
                }
                list.push(a);
            }
        }
        Ok(list)
    }

    /// The constant that a `Constant` node holds.
    fn constant(&mut self, attributes: &[AttributeProto]) -> Result<Constant, Refusal> {
        let [a] = attributes else {
            return Err(ImportError::Invalid(format!("{} attributes, one is needed", attributes.len())).into());
        };
        let place = || format!("constant {}", plain(&a.name));
        let fault = |e: TensorFault| match e {
            TensorFault::Bad(problem) => ImportError::Invalid(format!("attribute {} {problem}", plain(&a.name))).into(),
            limit => Refusal::Limit(limit.at(place())),
        };
        let text = |s: &Vec<u8>| {
            String::from_utf8(s.clone())
                .map_err(|_| ImportError::Invalid(format!("attribute {} is not UTF-8", plain(&a.name))))
        };
        let tensor = match (a.name.as_str(), a.type_.enum_value()) {
            ("value", Ok(AttributeType::TENSOR)) => return self.source.constant(&a.t).map_err(fault),
            ("sparse_value", Ok(AttributeType::SPARSE_TENSOR)) => {
                return self.source.dense(&a.sparse_tensor).map_err(fault);
            }
            ("value_float", Ok(AttributeType::FLOAT)) => Tensor::scalar(a.f),
            ("value_floats", Ok(AttributeType::FLOATS)) => Tensor::vector(a.floats.clone()),
            ("value_int", Ok(AttributeType::INT)) => Tensor::scalar(a.i),
            ("value_ints", Ok(AttributeType::INTS)) => Tensor::vector(a.ints.clone()),
            ("value_string", Ok(AttributeType::STRING)) => Tensor::scalar(text(&a.s)?),
            ("value_strings", Ok(AttributeType::STRINGS)) => {
                Tensor::vector(a.strings.iter().map(text).collect::<Result<Vec<_>, _>>()?)
            }
            (name, kind) => {
                return Err(ImportError::Invalid(format!(
                    "attribute {} of kind {kind:?} makes no constant",
                    plain(name)
                ))
                .into());
            }
        };
        Ok(Constant::from_tensor(&tensor).map_err(ImportError::from)?)
    }

    /// Adds a node that is carried as it is.
    fn opaque(
        &mut self,
        graph: &mut Graph,
        names: &Names,
        site: &Site<'_>,
        env: &Env<'_>,
        mut operands: Vec<Option<Value>>,
        reason: String,
    ) -> Result<Vec<Value>, OnnxError> {
        let mut node = site.node.clone();
        if env.attributes.is_some() {
            substitute_in(&mut node, env).map_err(|e| OnnxError::from(site.error(e.to_string())))?;
        }
        self.embed(&mut node).map_err(|e| e.at(format!("node {}", shown(&site.label))))?;
        let mut captures = Vec::new();
        for name in free_in_node(&node) {
            captures.push(name.to_owned());
            operands.push(Self::operand(names, name));
        }
        self.keeps_functions |= self.calls_function(&node);
        let bytes = node.write_to_bytes().map_err(|e| OnnxError::from(site.error(e.to_string())))?;
        self.source.copy(bytes.len()).map_err(|e| e.at(format!("node {}", shown(&site.label))))?;
        let kind = Kind::Opaque(Opaque {
            domain: site.domain.to_owned(),
            op_type: node.op_type.clone(),
            proto: std::sync::Arc::new(bytes),
            integers: integers(&node),
            captures,
            reason,
        });
        let facts: Vec<Option<Fact>> = vec![None; node.output.len()];
        let id = graph.add_node(kind, operands, facts);
        graph.annotate(id, format!("{}{}", env.prefix, node.name), vec![site.label.as_str().into()]);
        Ok((0..node.output.len()).map(|p| Value { node: id, port: u32::try_from(p).unwrap_or(u32::MAX) }).collect())
    }

    /// Removes the nodes that make sequences of which every use was read as tensors, and what was said of them.
    pub(super) fn without_read_sequences(&mut self, graph: &mut Graph) {
        for id in graph.nodes() {
            let node = graph.node(id);
            let Kind::Opaque(o) = &node.kind else { continue };
            let value = Value { node: id, port: 0 };
            if !ops::makes_sequence(&o.domain, &o.op_type)
                || !graph.users_of_node(id).is_empty()
                || graph.is_output(value)
            {
                continue;
            }
            let place = node.origins.first().map(|o| format!("node {}", shown(o)));
            self.problems.retain(|p| Some(&p.place) != place.as_ref() || p.severity != Severity::Unsupported);
            graph.remove(id);
        }
    }

    /// Moves the data of every tensor in the node's attributes into it, wherever it lies.
    pub(super) fn embed(&mut self, node: &mut NodeProto) -> Result<(), TensorFault> {
        for a in &mut node.attribute {
            for t in a.t.as_mut().into_iter().chain(&mut a.tensors) {
                self.embed_tensor(t)?;
            }
            for s in a.sparse_tensor.as_mut().into_iter().chain(&mut a.sparse_tensors) {
                for t in s.values.as_mut().into_iter().chain(s.indices.as_mut()) {
                    self.embed_tensor(t)?;
                }
            }
            for g in a.g.as_mut().into_iter().chain(&mut a.graphs) {
                self.embed_graph(g)?;
            }
        }
        Ok(())
    }

    fn embed_graph(&mut self, graph: &mut GraphProto) -> Result<(), TensorFault> {
        for t in &mut graph.initializer {
            self.embed_tensor(t)?;
        }
        for s in &mut graph.sparse_initializer {
            for t in s.values.as_mut().into_iter().chain(s.indices.as_mut()) {
                self.embed_tensor(t)?;
            }
        }
        for node in &mut graph.node {
            self.embed(node)?;
        }
        Ok(())
    }

    fn embed_tensor(&mut self, t: &mut onnx_protobuf::TensorProto) -> Result<(), TensorFault> {
        use onnx_protobuf::tensor_proto::DataLocation;
        let external = t.data_location.enum_value() == Ok(DataLocation::EXTERNAL);
        if external || crate::onnx::wire::payload_index(t).is_some() {
            let c = self.source.constant(t)?;
            self.source.copy(c.bytes().len())?;
            t.raw_data = c.bytes().as_bytes().to_vec();
            t.external_data.clear();
            t.data_location = DataLocation::DEFAULT.into();
            t.special_fields.mut_unknown_fields().clear();
        }
        Ok(())
    }

    /// Whether a node nested in `node` calls a local function.
    fn calls_function(&self, node: &NodeProto) -> bool {
        crate::onnx::names::subgraphs(node).flat_map(|g| &g.node).any(|n| {
            let key = (domain_of(&n.domain).to_owned(), n.op_type.clone(), n.overload.clone());
            self.functions.contains_key(&key) || self.calls_function(n)
        })
    }
}

/// Why a node was not read.
pub(super) enum Refusal {
    /// It is not executed, or breaks the specification.
    Import(ImportError),
    /// It exceeds a limit.
    Limit(OnnxError),
}

impl From<ImportError> for Refusal {
    fn from(e: ImportError) -> Refusal {
        Refusal::Import(e)
    }
}

fn not_executed(domain: &str, op_type: &str) -> String {
    if domain.is_empty() {
        format!("operator {} is not executed", plain(op_type))
    } else {
        format!("operator {} of domain {} is not known", plain(op_type), plain(domain))
    }
}

/// The attributes of a node that are one integer; the first of each name.
fn integers(node: &NodeProto) -> std::collections::BTreeMap<String, i64> {
    let mut found = std::collections::BTreeMap::new();
    for a in node.attribute.iter().filter(|a| a.type_.enum_value() == Ok(AttributeType::INT)) {
        found.entry(a.name.clone()).or_insert(a.i);
    }
    found
}

/// A stand-in for a value that the model fails to define, so that `check` can go on.
pub(super) fn unknown(graph: &mut Graph, name: &str) -> Value {
    let kind = Kind::Opaque(Opaque {
        domain: String::new(),
        op_type: "undefined".into(),
        proto: std::sync::Arc::default(),
        integers: std::collections::BTreeMap::new(),
        captures: Vec::new(),
        reason: format!("value {} is not defined", shown(name)),
    });
    Value { node: graph.add_node(kind, Vec::new(), vec![None]), port: 0 }
}

/// The attribute with the surrounding function's value in place of a reference; `None` if the caller leaves it out.
fn substituted(a: &AttributeProto, env: &Env<'_>) -> Result<Option<AttributeProto>, ImportError> {
    if a.ref_attr_name.is_empty() {
        return Ok(Some(a.clone()));
    }
    let Some(attributes) = &env.attributes else {
        let problem =
            format!("attribute {} refers to an attribute of a function, and the node is in none", plain(&a.name));
        return Err(ImportError::Invalid(problem));
    };
    Ok(attributes.get(&a.ref_attr_name).map(|value| AttributeProto { name: a.name.clone(), ..value.clone() }))
}

/// As [`substituted`], for all attributes of a node and of the nodes nested in it.
fn substitute_in(node: &mut NodeProto, env: &Env<'_>) -> Result<(), ImportError> {
    let mut list = Vec::with_capacity(node.attribute.len());
    for a in &node.attribute {
        if let Some(mut a) = substituted(a, env)? {
            for g in a.g.as_mut().into_iter().chain(&mut a.graphs) {
                for nested in &mut g.node {
                    substitute_in(nested, env)?;
                }
            }
            list.push(a);
        }
    }
    node.attribute = list;
    Ok(())
}
