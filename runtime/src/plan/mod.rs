//! Plans: a model as a list of instructions over numbered values.

pub mod file;

use std::{fmt, sync::Arc};

use crate::{Constant, DType, Dim, Op};

/// The number of a value within its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// An input or output of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name in the model.
    pub name: String,
    /// Its value.
    pub slot: Slot,
    /// The declared element type.
    pub dtype: DType,
    /// The declared sizes, expressions over the symbols of the inputs; `None` if not even the rank is known.
    pub shape: Option<Vec<Dim>>,
    /// For an input: the value it has if the caller gives none.
    pub default: Option<Constant>,
}

/// What an instruction does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// An operator on the inputs.
    Op(Op),
    /// One of two plans, chosen by the first input. The other inputs are the captures of both, in the order of the
    /// inputs of each.
    If {
        /// Run when the first input is true.
        then_branch: Arc<Plan>,
        /// Run when it is false.
        else_branch: Arc<Plan>,
    },
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// The name of the node it stands for, for messages and profiles.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Operands, holes included.
    pub inputs: Vec<Option<Slot>>,
    /// Where the results go; a hole drops one.
    pub outputs: Vec<Option<Slot>>,
    /// Values that no later step reads.
    pub last_use: Vec<Slot>,
}

/// A model in executable form. Each slot is written once: by the inputs, a constant or an instruction.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The model's inputs.
    pub inputs: Vec<Port>,
    /// The model's outputs.
    pub outputs: Vec<Port>,
    /// The constants.
    pub constants: Vec<(Slot, Constant)>,
    /// The steps, in an order in which each value is written before it is read.
    pub instructions: Vec<Instruction>,
    /// Number of slots.
    pub slots: usize,
}

/// A plan that breaks an invariant.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A slot number beyond [`Plan::slots`].
    #[error("{at}: {slot} is not one of the plan's {slots} values")]
    NoSuchSlot {
        /// Which instruction or port.
        at: String,
        /// The slot.
        slot: Slot,
        /// How many there are.
        slots: usize,
    },
    /// A slot read before it is written, or after its last use.
    #[error("{at}: {slot} is read but holds nothing there")]
    ReadBeforeWrite {
        /// Which instruction or port.
        at: String,
        /// The slot.
        slot: Slot,
    },
    /// A slot written twice.
    #[error("{at}: {slot} is written a second time")]
    WrittenTwice {
        /// Which instruction or port.
        at: String,
        /// The slot.
        slot: Slot,
    },
    /// A branch whose inputs or outputs are not those of its instruction.
    #[error("{at}: a branch takes {inputs} values and gives {outputs}, the instruction has {given} and {taken}")]
    Branch {
        /// Which instruction.
        at: String,
        /// Inputs of the branch.
        inputs: usize,
        /// Outputs of the branch.
        outputs: usize,
        /// Captures of the instruction.
        given: usize,
        /// Outputs of the instruction.
        taken: usize,
    },
}

impl Plan {
    /// Checks the invariants: every slot exists, is written once and before it is read, and not read after its last use.
    ///
    /// # Errors
    /// The first [`PlanError`].
    pub fn check(&self) -> Result<(), PlanError> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            Empty,
            Full,
            Gone,
        }
        let mut states = vec![State::Empty; self.slots];
        let slots = self.slots;
        let find = |at: &str, slot: Slot| {
            if slot.index() < slots {
                Ok(slot.index())
            } else {
                Err(PlanError::NoSuchSlot { at: at.into(), slot, slots })
            }
        };
        fn write(states: &mut [State], i: usize, at: &str, slot: Slot) -> Result<(), PlanError> {
            if states[i] != State::Empty {
                return Err(PlanError::WrittenTwice { at: at.into(), slot });
            }
            states[i] = State::Full;
            Ok(())
        }
        for port in &self.inputs {
            write(&mut states, find(&port.name, port.slot)?, &port.name, port.slot)?;
        }
        for (slot, _) in &self.constants {
            write(&mut states, find("constant", *slot)?, "constant", *slot)?;
        }
        for step in &self.instructions {
            let at = &step.name;
            for &slot in step.inputs.iter().flatten() {
                if states[find(at, slot)?] != State::Full {
                    return Err(PlanError::ReadBeforeWrite { at: at.clone(), slot });
                }
            }
            if let Action::If { then_branch, else_branch } = &step.action {
                for branch in [then_branch, else_branch] {
                    branch.check()?;
                    if branch.inputs.len() + 1 != step.inputs.len() || branch.outputs.len() != step.outputs.len() {
                        return Err(PlanError::Branch {
                            at: at.clone(),
                            inputs: branch.inputs.len(),
                            outputs: branch.outputs.len(),
                            given: step.inputs.len().saturating_sub(1),
                            taken: step.outputs.len(),
                        });
                    }
                }
            }
            for &slot in step.outputs.iter().flatten() {
                write(&mut states, find(at, slot)?, at, slot)?;
            }
            for &slot in &step.last_use {
                states[find(at, slot)?] = State::Gone;
            }
        }
        for port in &self.outputs {
            if states[find(&port.name, port.slot)?] != State::Full {
                return Err(PlanError::ReadBeforeWrite { at: port.name.clone(), slot: port.slot });
            }
        }
        Ok(())
    }
}
