//! From a plan to a file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    path::Path,
};

use prost::Message;

use super::{
    CONSTANT_ALIGN, ENTRY, Fnv, MAGIC, MAX_DEPTH, MAX_RECORD, PLAN, PREFIX, PlanFileError, SECTION_ALIGN, VERSION,
    WEIGHTS, proto, round_up,
};
use crate::{
    AttrValue, Blob, Constant,
    plan::{Action, Plan, Port, Slot},
};

/// Index of the weight section, behind that of the plan.
const WEIGHT_SECTION: u32 = 1;

#[derive(Default)]
struct Writer {
    records: Vec<u8>,
    weights: Vec<(usize, Blob)>,
    weights_end: usize,
    blocks: u32,
    requirements: BTreeSet<&'static str>,
}

impl Plan {
    /// The bytes of the plan's file. The same plan gives the same bytes.
    ///
    /// # Errors
    /// If the plan breaks an invariant or exceeds what a reader accepts.
    pub fn encode(&self) -> Result<Vec<u8>, PlanFileError> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the plan's file: to a temporary name beside `path`, then renamed, so that there is never half a file.
    ///
    /// # Errors
    /// As [`Plan::encode`], and those of the operating system.
    pub fn save(&self, path: &Path) -> Result<(), PlanFileError> {
        let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(temporary);
        let written = (|| {
            let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
            let mut out = BufWriter::new(file);
            self.write_to(&mut out)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            Ok(std::fs::rename(&temporary, path)?)
        })();
        if written.is_err() {
            // The first error is the one to report.
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    fn write_to(&self, out: &mut dyn Write) -> Result<(), PlanFileError> {
        self.check()?;
        let mut w = Writer::default();
        w.block(self, 0)?;
        let header = proto::Header {
            producer: concat!("convc ", env!("CARGO_PKG_VERSION")).into(),
            requirements: w.requirements.iter().map(|&r| r.to_owned()).collect(),
        };
        let blocks = std::mem::take(&mut w.records);
        w.record("the list of operators", proto::record::Kind::Header(header))?;
        let mut plan = std::mem::take(&mut w.records);
        plan.extend(blocks);

        let overflow = || io::Error::new(io::ErrorKind::FileTooLarge, "the plan is larger than memory can address");
        let plan_at = round_up(PREFIX + 2 * ENTRY, SECTION_ALIGN).ok_or_else(overflow)?;
        let weights_at =
            plan_at.checked_add(plan.len()).and_then(|n| round_up(n, SECTION_ALIGN)).ok_or_else(overflow)?;
        let end = weights_at.checked_add(w.weights_end).ok_or_else(overflow)?;

        let mut sum = Fnv::new();
        w.pieces(&mut |bytes| {
            sum.update(bytes);
            Ok(())
        })?;
        let mut head = Vec::with_capacity(plan_at);
        head.extend(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend(2u32.to_le_bytes());
        head.extend(0u32.to_le_bytes());
        head.extend((end as u64).to_le_bytes());
        for (kind, at, length, checksum) in
            [(PLAN, plan_at, plan.len(), Fnv::of(&plan)), (WEIGHTS, weights_at, w.weights_end, sum.0)]
        {
            head.extend(kind.to_le_bytes());
            head.extend(0u32.to_le_bytes());
            head.extend((at as u64).to_le_bytes());
            head.extend((length as u64).to_le_bytes());
            head.extend(checksum.to_le_bytes());
        }
        head.resize(plan_at, 0);
        out.write_all(&head)?;
        plan.resize(weights_at - plan_at, 0);
        out.write_all(&plan)?;
        w.pieces(&mut |bytes| out.write_all(bytes))?;
        Ok(())
    }
}

impl Writer {
    /// The weight section from front to back, padding included.
    fn pieces(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut end = 0;
        for (at, blob) in &self.weights {
            sink(&[0; CONSTANT_ALIGN][..at - end])?;
            sink(blob.as_bytes())?;
            end = at + blob.len();
        }
        Ok(())
    }

    fn record(&mut self, at: &str, kind: proto::record::Kind) -> Result<(), PlanFileError> {
        let record = proto::Record { kind: Some(kind) };
        let bytes = record.encoded_len();
        if bytes > MAX_RECORD {
            return Err(PlanFileError::TooLarge { at: at.to_owned(), bytes });
        }
        // A Vec takes any number of bytes.
        record.encode_length_delimited(&mut self.records).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(())
    }

    /// Writes the branches within `plan`, then `plan`; returns its index.
    fn block(&mut self, plan: &Plan, depth: usize) -> Result<u32, PlanFileError> {
        if depth > MAX_DEPTH {
            return Err(PlanFileError::TooDeep);
        }
        let mut branches = BTreeMap::new();
        for (i, step) in plan.instructions.iter().enumerate() {
            if let Action::If { then_branch, else_branch } = &step.action {
                let then_block = self.block(then_branch, depth + 1)?;
                let else_block = self.block(else_branch, depth + 1)?;
                branches.insert(i, proto::If { then_block, else_block });
            }
        }
        use proto::record::Kind;
        let slots = u32::try_from(plan.slots)
            .map_err(|_| PlanFileError::TooLarge { at: "a block".into(), bytes: plan.slots })?;
        self.record("a block", Kind::Begin(proto::BlockBegin { slots }))?;
        for port in &plan.inputs {
            let input = self.port(port)?;
            self.record(&port.name, Kind::Input(input))?;
        }
        for (slot, constant) in &plan.constants {
            let value = Some(self.tensor(constant)?);
            self.record("a constant", Kind::Constant(proto::Constant { slot: slot.0, value }))?;
        }
        for (i, step) in plan.instructions.iter().enumerate() {
            let action = match &step.action {
                Action::Op(op) => {
                    self.requirements.insert(op.name());
                    let mut attributes = Vec::new();
                    for (name, value) in op.to_attrs() {
                        let value = self
                            .attribute(value)
                            .map_err(|source| PlanFileError::Tensor { at: step.name.clone(), source })?;
                        attributes.push(proto::Attribute { name, value: Some(value) });
                    }
                    Some(proto::instruction::Action::Operator(proto::Operator { name: op.name().into(), attributes }))
                }
                Action::If { .. } => branches.get(&i).map(|b| proto::instruction::Action::Branches(*b)),
            };
            let holes = |slots: &[Option<Slot>]| slots.iter().map(|s| s.map_or(0, |s| s.0.saturating_add(1))).collect();
            let instruction = proto::Instruction {
                name: step.name.clone(),
                inputs: holes(&step.inputs),
                outputs: holes(&step.outputs),
                last_use: step.last_use.iter().map(|s| s.0).collect(),
                action,
            };
            self.record(&step.name, Kind::Instruction(instruction))?;
        }
        for port in &plan.outputs {
            let output = self.port(port)?;
            self.record(&port.name, Kind::Output(output))?;
        }
        self.record("a block", Kind::End(proto::BlockEnd {}))?;
        self.blocks += 1;
        Ok(self.blocks - 1)
    }

    fn port(&mut self, port: &Port) -> Result<proto::Port, PlanFileError> {
        let shape = port.shape.as_ref().map(|s| proto::Shape { dims: s.iter().map(ToString::to_string).collect() });
        Ok(proto::Port {
            name: port.name.clone(),
            slot: port.slot.0,
            dtype: port.dtype.name().into(),
            shape,
            default: port.default.as_ref().map(|c| self.tensor(c)).transpose()?,
        })
    }

    fn tensor(&mut self, constant: &Constant) -> Result<proto::Tensor, PlanFileError> {
        use proto::tensor::Elements;
        let elements = if constant.dtype() == crate::DType::Str {
            Elements::Strings(proto::Strings { values: constant.as_strings().to_vec() })
        } else {
            let length = constant.bytes().len();
            let large = || PlanFileError::TooLarge { at: "the weight section".into(), bytes: length };
            let offset = round_up(self.weights_end, CONSTANT_ALIGN).ok_or_else(large)?;
            self.weights_end = offset.checked_add(length).ok_or_else(large)?;
            self.weights.push((offset, constant.bytes().clone()));
            Elements::Data(proto::Range { section: WEIGHT_SECTION, offset: offset as u64, length: length as u64 })
        };
        Ok(proto::Tensor {
            dtype: constant.dtype().name().into(),
            shape: constant.shape().iter().map(|&d| d as u64).collect(),
            elements: Some(elements),
        })
    }

    fn attribute(&mut self, value: AttrValue) -> Result<proto::attribute::Value, crate::TensorError> {
        use proto::attribute::Value;
        Ok(match value {
            AttrValue::Int(v) => Value::Int(v),
            AttrValue::Float(v) => Value::Float(v),
            AttrValue::Str(v) => Value::Str(v),
            AttrValue::Ints(values) => Value::Ints(proto::Ints { values }),
            AttrValue::Floats(values) => Value::Floats(proto::Floats { values }),
            AttrValue::Strs(values) => Value::Strs(proto::Strings { values }),
            AttrValue::Tensor(t) => {
                let constant = Constant::from_tensor(&t)?;
                match self.tensor(&constant) {
                    Ok(t) => Value::Tensor(t),
                    Err(_) => {
                        return Err(crate::TensorError::ElementCount { shape: t.shape().to_vec(), elements: t.len() });
                    }
                }
            }
        })
    }
}
