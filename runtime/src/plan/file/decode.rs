//! From a file to a plan. Nothing in the file is believed: every offset, slot, type and expression is checked here or by
//! [`Plan::check`], and what is allocated is bounded by a multiple of the file's size.

use std::{cell::Cell, path::Path, sync::Arc};

use prost::Message;

use super::{
    CONSTANT_ALIGN, Fnv, MAX_DEPTH, MAX_RECORD, PLAN, PlanFileError, Section, WEIGHTS, dtype, proto, sections,
};
use crate::{
    AttrValue, Attrs, Blob, Constant, Dim, Op,
    plan::{Action, Instruction, Plan, Port, Slot},
};

/// A block that has ended: its plan until an `If` takes it, and how deep the `If`s within it go.
struct Block {
    plan: Option<Plan>,
    depth: usize,
}

struct Reader<'a> {
    file: &'a Blob,
    sections: Vec<Section>,
    blocks: Vec<Block>,
    /// Bytes of constants that may still be referred to: each byte of the file once, so that a small file cannot
    /// become many large tensors.
    budget: Cell<usize>,
}

impl Plan {
    /// Maps the plan file at `path`. Constants stay in the file until they are read.
    ///
    /// # Errors
    /// If the file cannot be read or is not a valid plan.
    pub fn load(path: &Path) -> Result<Plan, PlanFileError> {
        Plan::decode(&crate::sys::map_file(path)?)
    }

    /// The plan in these bytes. Constants are views of them.
    ///
    /// # Errors
    /// If they are not a valid plan.
    pub fn decode(file: &Blob) -> Result<Plan, PlanFileError> {
        let sections = sections(file)?;
        let found = sections.iter().enumerate().find(|(_, s)| s.kind == PLAN);
        let Some((index, section)) = found else {
            return Err(PlanFileError::Header { problem: "there is no plan section".into() });
        };
        let bytes = file.as_bytes().get(section.range.clone()).unwrap_or_default();
        if Fnv::of(bytes) != section.checksum {
            return Err(PlanFileError::Checksum { section: index });
        }
        let reader = Reader { file, sections: sections.clone(), blocks: Vec::new(), budget: Cell::new(file.len()) };
        let plan = reader.read(bytes)?;
        plan.check()?;
        Ok(plan)
    }
}

impl Reader<'_> {
    fn read(mut self, mut bytes: &[u8]) -> Result<Plan, PlanFileError> {
        let mut open: Option<(Plan, usize)> = None;
        let mut record = 0;
        while !bytes.is_empty() {
            let problem = |problem: String| PlanFileError::Record { record, problem };
            let length = prost::decode_length_delimiter(&mut bytes).map_err(|e| problem(e.to_string()))?;
            if length > MAX_RECORD {
                return Err(problem(format!("it has {length} bytes, at most {MAX_RECORD} are allowed")));
            }
            let Some((message, rest)) = bytes.split_at_checked(length) else {
                return Err(problem("it is cut short".into()));
            };
            bytes = rest;
            let kind = proto::Record::decode(message).map_err(|e| problem(e.to_string()))?.kind;
            use proto::record::Kind;
            match (kind, &mut open) {
                (Some(Kind::Header(header)), None) if record == 0 => check_requirements(header)?,
                _ if record == 0 => return Err(problem("the first record must be the header".into())),
                (Some(Kind::Begin(begin)), None) => {
                    open = Some((Plan { slots: begin.slots as usize, ..Plan::default() }, 0));
                }
                (Some(Kind::Input(port)), Some((plan, _))) => plan.inputs.push(self.port(port)?),
                (Some(Kind::Output(port)), Some((plan, _))) => plan.outputs.push(self.port(port)?),
                (Some(Kind::Constant(c)), Some((plan, _))) => {
                    let slot = Slot(c.slot);
                    let at = || format!("constant {slot}");
                    let value = c.value.ok_or_else(|| problem("a constant without a value".into()))?;
                    plan.constants.push((slot, self.tensor(value, &at)?));
                }
                (Some(Kind::Instruction(i)), Some((plan, depth))) => {
                    let (step, inner) = self.instruction(i, record)?;
                    *depth = inner.max(*depth);
                    plan.instructions.push(step);
                }
                (Some(Kind::End(_)), Some(_)) => {
                    if let Some((plan, depth)) = open.take() {
                        check_slot_count(&plan, record)?;
                        self.blocks.push(Block { plan: Some(plan), depth });
                    }
                }
                (None, _) => return Err(problem("this runtime does not know its kind".into())),
                _ => return Err(problem("it is out of place".into())),
            }
            record += 1;
        }
        let problem = |problem: &str| PlanFileError::Record { record, problem: problem.into() };
        if open.is_some() {
            return Err(problem("the last block does not end"));
        }
        let main = self.blocks.pop().and_then(|b| b.plan).ok_or_else(|| problem("there is no block"))?;
        if self.blocks.iter().any(|b| b.plan.is_some()) {
            return Err(problem("a block is not used"));
        }
        Ok(main)
    }

    fn instruction(&mut self, i: proto::Instruction, record: usize) -> Result<(Instruction, usize), PlanFileError> {
        use proto::instruction::Action as Kind;
        let mut depth = 0;
        let action = match i.action {
            Some(Kind::Operator(op)) => Action::Op(self.operator(op, &i.name)?),
            Some(Kind::Branches(b)) => {
                let mut take = |index: u32| {
                    let block = self.blocks.get_mut(index as usize);
                    let plan = block.and_then(|b| {
                        depth = depth.max(b.depth + 1);
                        b.plan.take()
                    });
                    let problem = || format!("block {index} does not exist yet or is used already");
                    plan.map(Arc::new).ok_or_else(|| PlanFileError::Record { record, problem: problem() })
                };
                Action::If { then_branch: take(b.then_block)?, else_branch: take(b.else_block)? }
            }
            None => {
                let problem = format!("this runtime does not know what instruction {:?} does", i.name);
                return Err(PlanFileError::Record { record, problem });
            }
        };
        if depth > MAX_DEPTH {
            return Err(PlanFileError::TooDeep);
        }
        let holes = |slots: Vec<u32>| slots.into_iter().map(|s| s.checked_sub(1).map(Slot)).collect();
        let last_use = i.last_use.into_iter().map(Slot).collect();
        Ok((Instruction { name: i.name, action, inputs: holes(i.inputs), outputs: holes(i.outputs), last_use }, depth))
    }

    fn operator(&self, op: proto::Operator, node: &str) -> Result<Op, PlanFileError> {
        let mut attrs = Attrs::new();
        for a in op.attributes {
            let at = || format!("attribute {} of instruction {node:?}", a.name);
            use proto::attribute::Value;
            let value = match a.value {
                Some(Value::Int(v)) => AttrValue::Int(v),
                Some(Value::Float(v)) => AttrValue::Float(v),
                Some(Value::Str(v)) => AttrValue::Str(v),
                Some(Value::Ints(v)) => AttrValue::Ints(v.values),
                Some(Value::Floats(v)) => AttrValue::Floats(v.values),
                Some(Value::Strs(v)) => AttrValue::Strs(v.values),
                Some(Value::Tensor(t)) => {
                    let tensor = self.tensor(t, &at)?.to_tensor();
                    AttrValue::Tensor(tensor.map_err(|source| PlanFileError::Tensor { at: at(), source })?)
                }
                None => {
                    let source = crate::OpError::Unsupported(format!("the kind of attribute {}", a.name));
                    return Err(PlanFileError::Operator { node: node.to_owned(), op: op.name, source });
                }
            };
            attrs.insert(a.name, value);
        }
        Op::from_attrs(&op.name, attrs).map_err(|source| PlanFileError::Operator {
            node: node.to_owned(),
            op: op.name,
            source,
        })
    }

    fn port(&self, port: proto::Port) -> Result<Port, PlanFileError> {
        let at = || format!("{:?}", port.name);
        let dim = |text: &String| Dim::parse(text).map_err(|source| PlanFileError::Dim { at: at(), source });
        let shape = port.shape.as_ref().map(|s| s.dims.iter().map(dim).collect::<Result<_, _>>()).transpose()?;
        let dtype = dtype(&port.dtype, &at)?;
        let default = port.default.map(|t| self.tensor(t, &at)).transpose()?;
        Ok(Port { slot: Slot(port.slot), dtype, shape, default, name: port.name })
    }

    fn tensor(&self, tensor: proto::Tensor, at: &dyn Fn() -> String) -> Result<Constant, PlanFileError> {
        use proto::tensor::Elements;
        let dtype = dtype(&tensor.dtype, at)?;
        let shape: Option<Vec<usize>> = tensor.shape.iter().map(|&d| usize::try_from(d).ok()).collect();
        let shape = shape.unwrap_or_else(|| vec![usize::MAX; 2]);
        let made = match tensor.elements {
            Some(Elements::Strings(s)) if dtype == crate::DType::Str => Constant::strings(shape, s.values),
            Some(Elements::Data(range)) => Constant::new(dtype, shape, self.bytes(&range, at)?),
            _ => Constant::new(dtype, shape, Blob::from(Vec::new())),
        };
        made.map_err(|source| PlanFileError::Tensor { at: at(), source })
    }

    fn bytes(&self, r: &proto::Range, at: &dyn Fn() -> String) -> Result<Blob, PlanFileError> {
        let fail = |problem: &str| PlanFileError::Bytes {
            at: at(),
            section: r.section as usize,
            range: r.offset..r.offset.saturating_add(r.length),
            problem: problem.into(),
        };
        let section = self.sections.get(r.section as usize).filter(|s| s.kind == WEIGHTS);
        let section = section.ok_or_else(|| fail("there is no such weight section"))?;
        if !r.offset.is_multiple_of(CONSTANT_ALIGN as u64) {
            return Err(fail("the offset is not a multiple of 64"));
        }
        let blob = (|| {
            let start = usize::try_from(r.offset).ok()?;
            let end = start.checked_add(usize::try_from(r.length).ok()?)?;
            self.file.slice(section.range.clone())?.slice(start..end)
        })()
        .ok_or_else(|| fail("they lie outside the section"))?;
        let left = self.budget.get().checked_sub(blob.len());
        self.budget.set(left.ok_or_else(|| fail("the constants overlap"))?);
        Ok(blob)
    }
}

fn check_requirements(header: proto::Header) -> Result<(), PlanFileError> {
    let known = Op::names();
    let operators: Vec<String> = header.requirements.into_iter().filter(|r| !known.contains(&r.as_str())).collect();
    if operators.is_empty() { Ok(()) } else { Err(PlanFileError::MissingOperators { operators }) }
}

/// Every slot is written by something, so there are no more slots than writes: a number beyond would only cost memory.
fn check_slot_count(plan: &Plan, record: usize) -> Result<(), PlanFileError> {
    let results: usize = plan.instructions.iter().map(|i| i.outputs.len()).sum();
    let writes = plan.inputs.len() + plan.constants.len() + results;
    if plan.slots > writes {
        let problem = format!("the block claims {} values but writes at most {writes}", plan.slots);
        return Err(PlanFileError::Record { record, problem });
    }
    Ok(())
}
