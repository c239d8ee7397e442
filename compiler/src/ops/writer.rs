//! [`NodeWriter`]: what an operator's `to_onnx` sees.

use convc_runtime::{AttrValue, Constant, DType, Fact, Tensor};

/// An operator that cannot be written at the model's opset.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{op} cannot be written at opset {opset}: {problem}")]
pub struct ExportError {
    /// The operator.
    pub op: String,
    /// The model's opset.
    pub opset: i64,
    /// Why, as a sentence part.
    pub problem: String,
}

/// One operand of a node that is written.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// The name of the value in the file.
    pub name: &'a str,
    /// What is known of it.
    pub fact: Option<&'a Fact>,
    /// Its elements, if it is a constant.
    pub constant: Option<&'a Constant>,
}

/// An ONNX node as an operator writes it.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenNode {
    /// Operator domain; empty for ONNX's own.
    pub domain: String,
    /// Operator name.
    pub op_type: String,
    /// Names of the operands; empty for those that are left out.
    pub inputs: Vec<String>,
    /// Names of the results.
    pub outputs: Vec<String>,
    /// The attributes, in the order in which they are written.
    pub attrs: Vec<(String, AttrValue)>,
}

/// One node of the IR while it is written, as one or several ONNX nodes.
pub struct NodeWriter<'a> {
    op: &'a str,
    opset: i64,
    operands: Vec<Option<Operand<'a>>>,
    outputs: Vec<String>,
    output_facts: &'a [Option<Fact>],
    fresh: &'a mut dyn FnMut(&str) -> String,
    nodes: Vec<WrittenNode>,
    constants: Vec<(String, Tensor)>,
}

impl<'a> NodeWriter<'a> {
    /// A writer of the operator called `op`. `outputs` are the names of its results, empty for an unused one; `fresh` makes
    /// a name that the file does not use yet out of a stem.
    pub fn new(
        op: &'a str,
        opset: i64,
        operands: Vec<Option<Operand<'a>>>,
        outputs: Vec<String>,
        output_facts: &'a [Option<Fact>],
        fresh: &'a mut dyn FnMut(&str) -> String,
    ) -> NodeWriter<'a> {
        NodeWriter { op, opset, operands, outputs, output_facts, fresh, nodes: Vec::new(), constants: Vec::new() }
    }

    /// The version of the operator set that is written.
    #[must_use]
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// The operand at `i`, if it is given.
    #[must_use]
    pub fn operand(&self, i: usize) -> Option<Operand<'a>> {
        self.operands.get(i).copied().flatten()
    }

    /// The names of all operands, holes as empty names, trailing holes left out.
    #[must_use]
    pub fn operand_names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.operands.iter().map(|o| o.map_or(String::new(), |o| o.name.to_owned())).collect();
        while names.last().is_some_and(String::is_empty) {
            names.pop();
        }
        names
    }

    /// The names of the results.
    #[must_use]
    pub fn output_names(&self) -> Vec<String> {
        self.outputs.clone()
    }

    /// What is known of result `i`.
    #[must_use]
    pub fn output_fact(&self, i: usize) -> Option<&Fact> {
        self.output_facts.get(i)?.as_ref()
    }

    /// The elements of the operand at `i` as integers, for opsets in which it is an attribute.
    ///
    /// # Errors
    /// [`ExportError`] if it is not a constant of integers.
    pub fn constant_ints(&self, i: usize, name: &str) -> Result<Option<Vec<i64>>, ExportError> {
        let Some(o) = self.operand(i) else { return Ok(None) };
        let ints = o.constant.and_then(|c| c.to_tensor().ok()?.to_i64s());
        ints.map(Some).ok_or_else(|| self.refuse(format!("its input {name} must be a constant there")))
    }

    /// The operand at `i` as one float, for opsets in which it is an attribute.
    ///
    /// # Errors
    /// [`ExportError`] if it is not a constant of one float.
    pub fn constant_float(&self, i: usize, name: &str) -> Result<Option<f32>, ExportError> {
        let Some(o) = self.operand(i) else { return Ok(None) };
        let floats = o.constant.and_then(|c| c.to_tensor().ok()?.to_f64s());
        match floats.as_deref() {
            Some([v]) => Ok(Some(*v as f32)),
            _ => Err(self.refuse(format!("its input {name} must be a constant float there"))),
        }
    }

    /// Refuses opsets before the one that introduced the operator.
    ///
    /// # Errors
    /// [`ExportError`] below opset `first`.
    pub fn since(&self, first: i64) -> Result<(), ExportError> {
        if self.opset >= first { Ok(()) } else { Err(self.refuse(format!("the operator is new in opset {first}"))) }
    }

    /// The element type of the operand at `i`, if it is known.
    #[must_use]
    pub fn dtype(&self, i: usize) -> Option<DType> {
        Some(self.operand(i)?.fact?.dtype)
    }

    /// An initializer of one float in the type of the operand at `i` (f32 if that is not known), and its name.
    pub fn float_like(&mut self, i: usize, stem: &str, v: f64) -> String {
        let dtype = self.dtype(i).filter(|d| d.is_float()).unwrap_or(DType::F32);
        let v = if dtype == DType::F64 { Tensor::scalar(v) } else { Tensor::scalar(v as f32).rounded_to(dtype) };
        self.constant(stem, v)
    }

    /// An error that says why this opset cannot express the operator.
    pub fn refuse(&self, problem: impl Into<String>) -> ExportError {
        ExportError { op: self.op.to_owned(), opset: self.opset, problem: problem.into() }
    }

    /// Writes one node `op_type` from all operands to all results.
    ///
    /// # Errors
    /// None by itself; returns a `Result` so that `to_onnx` can end with it.
    pub fn emit(&mut self, op_type: &str, attrs: Vec<(&str, AttrValue)>) -> Result<(), ExportError> {
        let inputs = self.operand_names();
        self.node(op_type, inputs, self.outputs.clone(), attrs);
        Ok(())
    }

    /// Writes one node `op_type` of `domain` from all operands to all results.
    ///
    /// # Errors
    /// None by itself, as [`NodeWriter::emit`].
    pub fn emit_in(&mut self, domain: &str, op_type: &str, attrs: Vec<(&str, AttrValue)>) -> Result<(), ExportError> {
        self.emit(op_type, attrs)?;
        if let Some(node) = self.nodes.last_mut() {
            node.domain = domain.to_owned();
        }
        Ok(())
    }

    /// Writes one node `op_type` without attributes from the first operand to all results.
    ///
    /// # Errors
    /// None by itself, as [`NodeWriter::emit`].
    pub fn emit_first(&mut self, op_type: &str) -> Result<(), ExportError> {
        let inputs = self.operand_names().into_iter().take(1).collect();
        self.node(op_type, inputs, self.outputs.clone(), Vec::new());
        Ok(())
    }

    /// Makes negative axes of the operand at `i` count from the front, for opsets that know no others.
    ///
    /// # Errors
    /// [`ExportError`] if there are any and the operand's rank is not known.
    pub fn count_from_front(&self, i: usize, axes: &mut [i64]) -> Result<(), ExportError> {
        let rank = self.operand(i).and_then(|o| i64::try_from(o.fact?.rank()).ok());
        for axis in axes.iter_mut().filter(|a| **a < 0) {
            let rank = rank.ok_or_else(|| self.refuse("an axis counts from the back of an operand of unknown rank"))?;
            *axis += rank;
        }
        Ok(())
    }

    /// Writes one node with the given operands and results.
    pub fn node(&mut self, op_type: &str, inputs: Vec<String>, outputs: Vec<String>, attrs: Vec<(&str, AttrValue)>) {
        let attrs = attrs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.nodes.push(WrittenNode { domain: String::new(), op_type: op_type.to_owned(), inputs, outputs, attrs });
    }

    /// A name that the file does not use yet.
    pub fn fresh(&mut self, stem: &str) -> String {
        (self.fresh)(stem)
    }

    /// Adds an initializer and returns its name.
    pub fn constant(&mut self, stem: &str, tensor: Tensor) -> String {
        let name = self.fresh(stem);
        self.constants.push((name.clone(), tensor));
        name
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> (Vec<WrittenNode>, Vec<(String, Tensor)>) {
        (self.nodes, self.constants)
    }
}
