//! [`NodeReader`]: what an operator's `from_onnx` sees.

use convc_runtime::{AttrValue, Constant, DType, Fact, Op, OpError, Tensor, TensorError};

use crate::ir::{Graph, Value};

/// Why a node was not read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImportError {
    /// Legal ONNX that convc does not execute.
    #[error("{0}")]
    Unsupported(String),
    /// Against the specification: the model's fault.
    #[error("{0}")]
    Invalid(String),
}

impl From<OpError> for ImportError {
    fn from(e: OpError) -> ImportError {
        match e {
            OpError::Unsupported(_) | OpError::TooLarge { .. } => ImportError::Unsupported(e.to_string()),
            _ => ImportError::Invalid(e.to_string()),
        }
    }
}

impl From<TensorError> for ImportError {
    fn from(e: TensorError) -> ImportError {
        match e {
            TensorError::NotExecuted { .. } => ImportError::Unsupported(e.to_string()),
            _ => ImportError::Invalid(e.to_string()),
        }
    }
}

/// One ONNX node while it is read: its attributes, its operands, and the graph it is added to.
///
/// Attributes are taken out one by one; one that is left over makes the node unsupported, so that no attribute is
/// ever ignored by oversight.
pub struct NodeReader<'a> {
    graph: &'a mut Graph,
    op_type: &'a str,
    opset: i64,
    operands: Vec<Option<Value>>,
    outputs: Vec<bool>,
    attrs: Vec<(String, AttrValue)>,
    added: Vec<crate::ir::NodeId>,
}

impl<'a> NodeReader<'a> {
    /// A reader of a node of `op_type` at `opset`. `outputs` says which outputs have a name.
    pub fn new(
        graph: &'a mut Graph,
        op_type: &'a str,
        opset: i64,
        operands: Vec<Option<Value>>,
        outputs: Vec<bool>,
        attrs: Vec<(String, AttrValue)>,
    ) -> NodeReader<'a> {
        NodeReader { graph, op_type, opset, operands, outputs, attrs, added: Vec::new() }
    }

    /// The operator's name.
    #[must_use]
    pub fn op_type(&self) -> &str {
        self.op_type
    }

    /// The version of the operator set that the model imports.
    #[must_use]
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// Number of outputs the node lists (trailing unnamed ones included).
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Whether output `i` has a name, that is, may be used.
    #[must_use]
    pub fn has_output(&self, i: usize) -> bool {
        self.outputs.get(i).copied().unwrap_or(false)
    }

    /// All operands, holes included.
    #[must_use]
    pub fn operands(&self) -> &[Option<Value>] {
        &self.operands
    }

    /// The operand at `i`, if it is given.
    #[must_use]
    pub fn operand(&self, i: usize) -> Option<Value> {
        self.operands.get(i).copied().flatten()
    }

    /// The operand at `i`.
    ///
    /// # Errors
    /// [`ImportError::Invalid`] if it is not given.
    pub fn required(&self, i: usize, name: &'static str) -> Result<Value, ImportError> {
        self.operand(i).ok_or_else(|| ImportError::from(OpError::MissingInput { index: i, name }))
    }

    /// What is known of the operand at `i`: `None` if it is not given or nothing is known.
    #[must_use]
    pub fn fact(&self, i: usize) -> Option<&Fact> {
        self.graph.fact(self.operand(i)?)
    }

    /// What is known of any value.
    #[must_use]
    pub fn fact_of(&self, v: Value) -> Option<&Fact> {
        self.graph.fact(v)
    }

    /// The graph that the node is added to.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        self.graph
    }

    /// The operand at `i` as a constant tensor, if it is one.
    #[must_use]
    pub fn constant(&self, i: usize) -> Option<Tensor> {
        self.graph.constant(self.operand(i)?)?.to_tensor().ok()
    }

    /// Takes the attribute out, whatever its type.
    pub fn take(&mut self, name: &str) -> Option<AttrValue> {
        let i = self.attrs.iter().position(|(n, _)| n == name)?;
        Some(self.attrs.remove(i).1)
    }

    /// Takes the attribute that names an axis of operand 0 out, `default` if it is not given. Counted from the front where that
    /// operand's rank is known; an axis that it does not have, and one of unknown rank, stays as it is.
    ///
    /// # Errors
    /// If the attribute is no integer.
    pub fn axis(&mut self, name: &str, default: i64) -> Result<i64, ImportError> {
        let axis = self.int(name)?.unwrap_or(default);
        Ok(self.from_front(axis, 0))
    }

    /// The axes, counted from the front of operand 0 with `more` axes added, where its rank is known.
    #[must_use]
    pub fn all_from_front(&self, axes: Vec<i64>, more: usize) -> Vec<i64> {
        axes.into_iter().map(|a| self.from_front(a, more)).collect()
    }

    /// An axis, counted from the front of operand 0 with `more` axes added, where its rank is known.
    #[must_use]
    pub fn from_front(&self, axis: i64, more: usize) -> i64 {
        self.operand(0).map_or(axis, |v| self.from_front_of(v, axis, more))
    }

    /// An axis, counted from the front of a value with `more` axes added, where its rank is known.
    #[must_use]
    pub fn from_front_of(&self, v: Value, axis: i64, more: usize) -> i64 {
        let rank = self.fact_of(v).and_then(|f| i64::try_from(f.rank() + more).ok());
        match rank.and_then(|r| axis.checked_add(r)) {
            Some(front) if axis < 0 && front >= 0 => front,
            _ => axis,
        }
    }

    fn wrong_type(&self, name: &str, value: &AttrValue, expected: &str) -> ImportError {
        ImportError::Invalid(format!("attribute {name} is {value}, {expected} is needed"))
    }

    /// Takes an integer attribute out.
    ///
    /// # Errors
    /// [`ImportError::Invalid`] if it has another type.
    pub fn int(&mut self, name: &str) -> Result<Option<i64>, ImportError> {
        match self.take(name) {
            None => Ok(None),
            Some(AttrValue::Int(v)) => Ok(Some(v)),
            Some(v) => Err(self.wrong_type(name, &v, "an integer")),
        }
    }

    /// Takes a float attribute out.
    ///
    /// # Errors
    /// [`ImportError::Invalid`] if it has another type.
    pub fn float(&mut self, name: &str) -> Result<Option<f32>, ImportError> {
        match self.take(name) {
            None => Ok(None),
            Some(AttrValue::Float(v)) => Ok(Some(v)),
            Some(v) => Err(self.wrong_type(name, &v, "a float")),
        }
    }

    /// Takes a string attribute out.
    ///
    /// # Errors
    /// [`ImportError::Invalid`] if it has another type.
    pub fn string(&mut self, name: &str) -> Result<Option<String>, ImportError> {
        match self.take(name) {
            None => Ok(None),
            Some(AttrValue::Str(v)) => Ok(Some(v)),
            Some(v) => Err(self.wrong_type(name, &v, "a string")),
        }
    }

    /// Takes a list of integers out.
    ///
    /// # Errors
    /// [`ImportError::Invalid`] if it has another type.
    pub fn ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, ImportError> {
        match self.take(name) {
            None => Ok(None),
            Some(AttrValue::Ints(v)) => Ok(Some(v)),
            Some(v) => Err(self.wrong_type(name, &v, "a list of integers")),
        }
    }

    /// Takes a list of floats out.
    ///
    /// # Errors
    /// [`ImportError::Invalid`] if it has another type.
    pub fn floats(&mut self, name: &str) -> Result<Option<Vec<f32>>, ImportError> {
        match self.take(name) {
            None => Ok(None),
            Some(AttrValue::Floats(v)) => Ok(Some(v)),
            Some(v) => Err(self.wrong_type(name, &v, "a list of floats")),
        }
    }

    /// Takes an element type out (an integer attribute with ONNX's number of the type).
    ///
    /// # Errors
    /// [`ImportError::Invalid`] if it is no type.
    pub fn dtype(&mut self, name: &str) -> Result<Option<DType>, ImportError> {
        let Some(n) = self.int(name)? else { return Ok(None) };
        match i32::try_from(n).ok().and_then(super::dtype_from_onnx) {
            Some(d) => Ok(Some(d)),
            None => Err(ImportError::Invalid(format!("attribute {name} is {n}, which is not an element type"))),
        }
    }

    /// Refuses attributes that no `take` asked for. [`NodeReader::emit`] does this too.
    ///
    /// # Errors
    /// [`ImportError::Unsupported`] naming the first.
    pub fn finish(&self) -> Result<(), ImportError> {
        match self.attrs.first() {
            Some((name, value)) => Err(ImportError::Unsupported(format!(
                "attribute {name} ({value}) of {} at opset {}",
                self.op_type, self.opset
            ))),
            None => Ok(()),
        }
    }

    /// Adds an operator with as many outputs as the node has, after [`NodeReader::finish`].
    ///
    /// # Errors
    /// If the operands do not fit, or an attribute is left over.
    pub fn emit(&mut self, op: impl Into<Op>, operands: Vec<Option<Value>>) -> Result<Vec<Value>, ImportError> {
        self.finish()?;
        self.add(op, operands, self.outputs.len())
    }

    /// Adds an operator with `outputs` outputs: for nodes that mean several.
    ///
    /// # Errors
    /// If the operands do not fit.
    pub fn add(
        &mut self,
        op: impl Into<Op>,
        operands: Vec<Option<Value>>,
        outputs: usize,
    ) -> Result<Vec<Value>, ImportError> {
        let id = self.graph.add_op(op, operands, outputs)?;
        self.added.push(id);
        let n = self.graph.node(id).outputs();
        Ok((0..n).map(|p| Value { node: id, port: u32::try_from(p).unwrap_or(u32::MAX) }).collect())
    }

    /// Adds a constant, such as an attribute of an old opset that has become an operand.
    ///
    /// # Errors
    /// If the tensor cannot be stored.
    pub fn add_constant(&mut self, tensor: &Tensor) -> Result<Value, ImportError> {
        let v = self.graph.add_constant(Constant::from_tensor(tensor)?);
        self.added.push(v.node);
        Ok(v)
    }

    /// Adds a rank-1 constant of integers.
    ///
    /// # Errors
    /// None for any list.
    pub fn add_ints(&mut self, ints: &[i64]) -> Result<Value, ImportError> {
        self.add_constant(&Tensor::vector(ints.to_vec()))
    }

    /// The nodes added so far, which the importer names and removes again if the node turns out to be unsupported.
    #[must_use]
    pub fn added(&self) -> &[crate::ir::NodeId] {
        &self.added
    }
}
