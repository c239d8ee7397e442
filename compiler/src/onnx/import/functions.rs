//! Local functions: a call becomes the function's nodes.

use std::collections::BTreeMap;

use onnx_protobuf::FunctionProto;

use super::{
    Env, FunctionKey, Importer, Names, OnnxError, Severity,
    nodes::{Refusal, Site, unknown},
    plain, shown,
};
use crate::ir::Graph;

impl<'a> Importer<'a> {
    /// Inlines the call `site` of the function `f`.
    pub(super) fn call(
        &mut self,
        graph: &mut Graph,
        names: &mut Names,
        site: &Site<'_>,
        env: &Env<'_>,
        f: &FunctionProto,
        key: FunctionKey,
    ) -> Result<(), OnnxError> {
        let node = site.node;
        self.count_nodes((f.input.len() + f.output.len() + f.attribute.len() + f.attribute_proto.len()) / 64)?;
        let recursive = env.calls.contains(&key);
        if recursive || env.calls.len() >= self.limits.depth {
            let what = if recursive {
                "calls a function that calls itself".to_owned()
            } else {
                format!("calls functions more than {} deep", self.limits.depth)
            };
            self.fail(site.error(what))?;
            for out in node.output.iter().filter(|o| !o.is_empty()) {
                let v = unknown(graph, out);
                names.insert(out.clone(), Some(v));
            }
            return Ok(());
        }
        if node.input.len() > f.input.len() {
            self.fail(site.error(format!("gives {} inputs, the function takes {}", node.input.len(), f.input.len())))?;
        }
        if node.output.len() > f.output.len() {
            self.fail(site.error(format!("has {} outputs, the function gives {}", node.output.len(), f.output.len())))?;
        }
        let mut attributes: BTreeMap<String, _> =
            f.attribute_proto.iter().map(|a| (a.name.clone(), a.clone())).collect();
        match self.attributes(site, env) {
            Ok(given) => {
                for a in given {
                    if !f.attribute.contains(&a.name) && !attributes.contains_key(&a.name) {
                        let what = format!("gives attribute {}, which the function does not have", plain(&a.name));
                        self.problems.push(site.problem(Severity::Note, what, "it is ignored"));
                    }
                    attributes.insert(a.name.clone(), a);
                }
            }
            Err(Refusal::Limit(e)) => return Err(e),
            Err(Refusal::Import(e)) => self.fail(site.error(e.to_string()))?,
        }
        let mut inner = Names::with_capacity(f.input.len());
        for (i, name) in f.input.iter().enumerate() {
            let given = node.input.get(i).and_then(|n| names.get(n).copied().flatten());
            if inner.insert(name.clone(), given).is_some() {
                self.fail(site.error(format!("calls a function that takes input {} twice", shown(name))))?;
            }
        }
        let opsets = self.opsets(&format!("function {}", shown(&f.name)), &f.opset_import)?;
        let mut calls = env.calls.clone();
        calls.push(key);
        let prefix = format!("{}/", site.label);
        let inside = Env {
            opsets: if f.opset_import.is_empty() { env.opsets.clone() } else { opsets },
            attributes: Some(attributes),
            prefix: prefix.clone(),
            calls,
            depth: env.depth,
            value_info: f.value_info.iter().map(|v| (v.name.as_str(), v)).collect(),
        };
        self.nodes(graph, &mut inner, &f.node, &inside)?;
        for (out, name) in node.output.iter().zip(&f.output).filter(|(o, _)| !o.is_empty()) {
            let value = match inner.get(name) {
                Some(Some(v)) => *v,
                _ => {
                    self.fail(site.error(format!("calls a function whose output {} is not computed", shown(name))))?;
                    unknown(graph, out)
                }
            };
            if graph.value_name(value).is_none_or(|n| n.starts_with(&prefix)) {
                graph.set_value_name(value, format!("{}{out}", env.prefix));
            }
            names.insert(out.clone(), Some(value));
        }
        Ok(())
    }
}
