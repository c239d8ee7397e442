//! Sessions: a plan, its constants in memory, and the threads that run it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    DType, OpError, Real, Symbol, Tensor, TensorError,
    dim::DimError,
    kernels::Isa,
    ops::RunCx,
    plan::{Action, Instruction, Plan, PlanError, Port, Slot},
    sys::Pool,
};

/// How to run.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionOptions {
    /// Number of threads, the caller's included.
    pub threads: usize,
    /// What stands for floating-point numbers.
    pub real: Real,
    /// The instruction set; one that the machine lacks falls back to the best it has. Results never depend on it.
    pub isa: Isa,
    /// The largest number of elements that one value may have.
    pub max_elements: usize,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions { threads: 1, real: Real::Native, isa: Isa::detect(), max_elements: 1 << 31 }
    }
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RunError {
    /// The plan breaks an invariant.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A constant could not be loaded.
    #[error("constant {slot}: {source}")]
    Constant {
        /// Which.
        slot: Slot,
        /// Why.
        source: TensorError,
    },
    /// No tensor was given for an input that has no default.
    #[error("no value is given for input {name:?}")]
    MissingInput {
        /// The input.
        name: String,
    },
    /// A tensor was given that no input takes.
    #[error("there is no input {name:?}; the inputs are {inputs}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// The names there are.
        inputs: String,
    },
    /// An input's type or shape is not the declared one.
    #[error("input {name:?} is {given}, but the model declares {declared}")]
    InputMismatch {
        /// The input.
        name: String,
        /// Type and shape given.
        given: String,
        /// Type and shape declared.
        declared: String,
    },
    /// Two inputs give one symbol different values.
    #[error("input {name:?} makes {symbol} {value}, an earlier one makes it {earlier}")]
    Symbol {
        /// The input.
        name: String,
        /// The symbol.
        symbol: Symbol,
        /// Its value by this input.
        value: i64,
        /// Its value by an earlier input.
        earlier: i64,
    },
    /// An operator refused its operands.
    #[error("node {node:?} ({op}): {source}")]
    Op {
        /// The node.
        node: String,
        /// The operator.
        op: &'static str,
        /// Why.
        source: OpError,
    },
    /// A size could not be evaluated.
    #[error(transparent)]
    Dim(#[from] DimError),
}

/// A plan with its constants in memory, and those of its branches.
#[derive(Debug)]
struct Prepared {
    plan: Arc<Plan>,
    constants: Vec<(Slot, Tensor)>,
    /// Constants that another type stands for: which of the plan's it is. They are made for each instruction that reads them,
    /// since all of them at once are several times the model.
    made: BTreeMap<Slot, usize>,
    /// For each instruction that is an `If`: the branch for true, the one for false.
    branches: BTreeMap<usize, [Box<Prepared>; 2]>,
}

impl Prepared {
    fn new(plan: &Arc<Plan>, real: Real) -> Result<Prepared, RunError> {
        let load = |(slot, c): &(Slot, crate::Constant)| {
            Ok((*slot, c.to_tensor().map_err(|source| RunError::Constant { slot: *slot, source })?))
        };
        let is_made = |c: &crate::Constant| real != Real::Native && c.dtype().is_float();
        let as_they_are = plan.constants.iter().filter(|(_, c)| !is_made(c));
        let constants = as_they_are.map(load).collect::<Result<_, RunError>>()?;
        let made = plan.constants.iter().zip(0..).filter(|((_, c), _)| is_made(c)).map(|((s, _), i)| (*s, i)).collect();
        let mut branches = BTreeMap::new();
        for (i, step) in plan.instructions.iter().enumerate() {
            if let Action::If { then_branch, else_branch } = &step.action {
                let prepare = |branch| Ok::<_, RunError>(Box::new(Prepared::new(branch, real)?));
                branches.insert(i, [prepare(then_branch)?, prepare(else_branch)?]);
            }
        }
        Ok(Prepared { plan: Arc::clone(plan), constants, made, branches })
    }

    /// Makes those of `slots` that are constants which another type stands for; returns which.
    fn make(
        &self,
        slots: impl Iterator<Item = Slot>,
        values: &mut [Option<Tensor>],
        real: Real,
    ) -> Result<Vec<Slot>, RunError> {
        let mut made = Vec::new();
        for slot in slots {
            let Some((_, c)) = self.made.get(&slot).and_then(|i| self.plan.constants.get(*i)) else { continue };
            let tensor = c.to_tensor().map_err(|source| RunError::Constant { slot, source })?;
            values[slot.index()] = Some(tensor.to_real(real));
            made.push(slot);
        }
        Ok(made)
    }
}

/// What happens during a run, for those who want to see it.
enum Watch<'a> {
    Nothing,
    /// Every value written by the outermost plan.
    Values(&'a mut dyn FnMut(Slot, &Tensor)),
    /// Every instruction run, those of branches included, and the time it took.
    Steps(&'a mut dyn FnMut(&Instruction, Duration)),
}

/// A plan that is ready to run.
#[derive(Debug)]
pub struct Session {
    prepared: Prepared,
    options: SessionOptions,
    pool: Pool,
}

impl Session {
    /// Checks `plan` and loads its constants.
    ///
    /// # Errors
    /// [`RunError::Plan`], [`RunError::Constant`].
    pub fn new(plan: Arc<Plan>, options: SessionOptions) -> Result<Session, RunError> {
        plan.check()?;
        let prepared = Prepared::new(&plan, options.real)?;
        let pool = Pool::new(options.threads);
        Ok(Session { prepared, options, pool })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.prepared.plan
    }

    /// Runs the plan on `inputs` (by name) and returns the outputs in the plan's order.
    ///
    /// # Errors
    /// If an input is missing, unknown or of another type or shape than declared, or an operator refuses its operands.
    pub fn run(&self, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<Tensor>, RunError> {
        self.execute(&self.prepared, self.bind(inputs)?, &mut Watch::Nothing)
    }

    /// As [`Session::run`], and shows `observe` every value that is written, inputs included and constants not.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_observed(
        &self,
        inputs: &BTreeMap<String, Tensor>,
        observe: &mut dyn FnMut(Slot, &Tensor),
    ) -> Result<Vec<Tensor>, RunError> {
        self.execute(&self.prepared, self.bind(inputs)?, &mut Watch::Values(observe))
    }

    /// As [`Session::run`], and tells `observe` how long each instruction took. An `If` takes as long as the instructions
    /// of the branch it runs, which are told before it.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_profiled(
        &self,
        inputs: &BTreeMap<String, Tensor>,
        observe: &mut dyn FnMut(&Instruction, Duration),
    ) -> Result<Vec<Tensor>, RunError> {
        self.execute(&self.prepared, self.bind(inputs)?, &mut Watch::Steps(observe))
    }

    /// The inputs in the plan's order, checked against what is declared.
    fn bind(&self, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<Tensor>, RunError> {
        if let Some(name) = inputs.keys().find(|n| !self.plan().inputs.iter().any(|p| p.name == **n)) {
            let known: Vec<&str> = self.plan().inputs.iter().map(|p| p.name.as_str()).collect();
            return Err(RunError::UnknownInput { name: name.clone(), inputs: known.join(", ") });
        }
        let mut symbols: BTreeMap<Symbol, i64> = BTreeMap::new();
        let mut given = Vec::with_capacity(self.plan().inputs.len());
        for port in &self.plan().inputs {
            let tensor = match (inputs.get(&port.name), &port.default) {
                (Some(t), _) => t.clone(),
                (None, Some(c)) => c.to_tensor().map_err(|source| RunError::Constant { slot: port.slot, source })?,
                (None, None) => return Err(RunError::MissingInput { name: port.name.clone() }),
            };
            check_port(port, &tensor, self.options.real, &mut symbols)?;
            given.push(tensor.to_real(self.options.real));
        }
        Ok(given)
    }

    fn execute(
        &self,
        prepared: &Prepared,
        inputs: Vec<Tensor>,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Tensor>, RunError> {
        let plan = &*prepared.plan;
        let mut values: Vec<Option<Tensor>> = vec![None; plan.slots];
        for (port, tensor) in plan.inputs.iter().zip(inputs) {
            if let Watch::Values(observe) = watch {
                observe(port.slot, &tensor);
            }
            values[port.slot.index()] = Some(tensor);
        }
        for (slot, tensor) in &prepared.constants {
            values[slot.index()] = Some(tensor.clone());
        }
        for (i, step) in plan.instructions.iter().enumerate() {
            let start = matches!(watch, Watch::Steps(_)).then(Instant::now);
            let made = prepared.make(step.inputs.iter().copied().flatten(), &mut values, self.options.real)?;
            let outputs = self.step(step, prepared.branches.get(&i), &values, watch)?;
            if let (Watch::Steps(observe), Some(start)) = (&mut *watch, start) {
                observe(step, start.elapsed());
            }
            for (slot, tensor) in step.outputs.iter().zip(outputs) {
                if let Some(slot) = slot {
                    if let Watch::Values(observe) = watch {
                        observe(*slot, &tensor);
                    }
                    values[slot.index()] = Some(tensor);
                }
            }
            for slot in step.last_use.iter().chain(&made) {
                values[slot.index()] = None;
            }
        }
        prepared.make(plan.outputs.iter().map(|port| port.slot), &mut values, self.options.real)?;
        plan.outputs
            .iter()
            .map(|port| {
                values[port.slot.index()]
                    .clone()
                    .ok_or_else(|| PlanError::ReadBeforeWrite { at: port.name.clone(), slot: port.slot }.into())
            })
            .collect()
    }

    fn step(
        &self,
        step: &Instruction,
        branches: Option<&[Box<Prepared>; 2]>,
        values: &[Option<Tensor>],
        watch: &mut Watch<'_>,
    ) -> Result<Vec<Tensor>, RunError> {
        let operands: Vec<Option<&Tensor>> =
            step.inputs.iter().map(|s| s.and_then(|s| values[s.index()].as_ref())).collect();
        match (&step.action, branches) {
            (Action::Op(op), _) => {
                let SessionOptions { real, isa, max_elements, .. } = self.options;
                let cx = RunCx { real, pool: &self.pool, isa, max_elements };
                op.run(&operands, &cx).map_err(|source| RunError::Op { node: step.name.clone(), op: op.name(), source })
            }
            (Action::If { .. }, Some([then_branch, else_branch])) => {
                let condition = operands.first().copied().flatten().and_then(Tensor::to_i64s);
                let branch = match condition.as_deref() {
                    Some([0]) => else_branch,
                    Some([_]) => then_branch,
                    _ => {
                        let problem = "the condition is not one boolean".into();
                        let source = OpError::InputValue { index: 0, name: "cond", problem };
                        return Err(RunError::Op { node: step.name.clone(), op: "If", source });
                    }
                };
                let captures = operands[1..].iter().map(|t| t.cloned()).collect::<Option<Vec<_>>>();
                let captures = captures.ok_or_else(|| RunError::MissingInput { name: step.name.clone() })?;
                // The names of values are those of the outermost plan.
                match watch {
                    Watch::Values(_) => self.execute(branch, captures, &mut Watch::Nothing),
                    _ => self.execute(branch, captures, watch),
                }
            }
            // `Prepared::new` has prepared every `If`.
            (Action::If { .. }, None) => Err(RunError::MissingInput { name: step.name.clone() }),
        }
    }
}

/// Checks a tensor against what `port` declares and learns the values of its symbols.
fn check_port(port: &Port, tensor: &Tensor, real: Real, symbols: &mut BTreeMap<Symbol, i64>) -> Result<(), RunError> {
    let Some(shape) = &port.shape else { return Ok(()) };
    let mismatch = || RunError::InputMismatch {
        name: port.name.clone(),
        given: format!("{}{:?}", tensor.dtype(), tensor.shape()),
        declared: format!("{}{}", port.dtype, crate::fact::Shape(shape)),
    };
    let stands_in = real == Real::F64 && port.dtype.is_float() && tensor.dtype() == DType::F64;
    if (tensor.dtype() != port.dtype && !stands_in) || tensor.rank() != shape.len() {
        return Err(mismatch());
    }
    for (declared, &size) in shape.iter().zip(tensor.shape()) {
        let size = size as i64;
        if let Some(symbol) = declared.as_symbol() {
            let earlier = *symbols.entry(symbol.clone()).or_insert(size);
            if earlier != size {
                return Err(RunError::Symbol { name: port.name.clone(), symbol: symbol.clone(), value: size, earlier });
            }
        } else if declared.as_fixed().is_some_and(|d| d != size) {
            return Err(mismatch());
        }
    }
    Ok(())
}
