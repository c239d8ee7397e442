use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    Constant, Dim, Op, Tensor,
    ops::{Conv, Unary, unary::UnaryKind},
    plan::{Action, Instruction, Plan, Port, Slot},
    session::{Session, SessionOptions},
    window::AutoPad,
};

fn constant(t: &Tensor) -> Constant {
    Constant::from_tensor(t).unwrap()
}

fn port(name: &str, slot: u32, dtype: DType, shape: &[&str]) -> Port {
    let shape = shape.iter().map(|d| Dim::parse(d).unwrap()).collect();
    Port { name: name.into(), slot: Slot(slot), dtype, shape: Some(shape), default: None }
}

fn unary(kind: UnaryKind, from: u32, to: u32, last_use: &[u32]) -> Instruction {
    Instruction {
        name: format!("{}_{to}", kind.text()),
        action: Action::Op(Op::Unary(Unary::new(kind))),
        inputs: vec![Some(Slot(from))],
        outputs: vec![Some(Slot(to))],
        last_use: last_use.iter().map(|&s| Slot(s)).collect(),
    }
}

/// x -> Conv -> If(flag) Relu else Sigmoid; every part of a plan occurs.
fn sample() -> Plan {
    let branch = |kind| {
        Arc::new(Plan {
            inputs: vec![Port { shape: None, ..port("captured", 0, DType::F32, &[]) }],
            outputs: vec![port("y", 1, DType::F32, &["N", "2", "floor((H - 1)/2) + 1", "'?n é'"])],
            constants: vec![],
            instructions: vec![unary(kind, 0, 1, &[0])],
            slots: 2,
        })
    };
    let conv =
        Conv { strides: vec![2, 1], pads: vec![1; 4], dilations: vec![1, 1], group: 1, auto_pad: AutoPad::NotSet };
    let flag = Port { default: Some(constant(&Tensor::scalar(true))), ..port("flag", 1, DType::Bool, &[]) };
    Plan {
        inputs: vec![port("x", 0, DType::F32, &["N", "1", "H", "W"]), flag],
        outputs: vec![Port { shape: None, ..port("y", 4, DType::F32, &[]) }, port("names", 5, DType::Str, &["2"])],
        constants: vec![
            (Slot(2), constant(&Tensor::new([2, 1, 3, 3], (0..18).map(|i| i as f32 - 7.5).collect()).unwrap())),
            (Slot(5), Constant::strings([2], vec!["a".into(), "b\0".into()]).unwrap()),
        ],
        instructions: vec![
            Instruction {
                name: "conv".into(),
                action: Action::Op(Op::Conv(conv)),
                inputs: vec![Some(Slot(0)), Some(Slot(2)), None],
                outputs: vec![Some(Slot(3))],
                last_use: vec![Slot(0)],
            },
            Instruction {
                name: "if".into(),
                action: Action::If { then_branch: branch(UnaryKind::Relu), else_branch: branch(UnaryKind::Sigmoid) },
                inputs: vec![Some(Slot(1)), Some(Slot(3))],
                outputs: vec![Some(Slot(4))],
                last_use: vec![Slot(3)],
            },
        ],
        slots: 6,
    }
}

fn decode(bytes: &[u8]) -> Result<Plan, PlanFileError> {
    Plan::decode(&Blob::from(bytes.to_vec()))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Makes length and checksums agree with the bytes again.
fn seal(bytes: &mut [u8]) {
    if bytes.len() < PREFIX + 2 * ENTRY {
        return;
    }
    let length = bytes.len() as u64;
    put(bytes, 16, &length.to_le_bytes());
    for i in 0..2 {
        let at = PREFIX + i * ENTRY;
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let start = number(at + 8);
        let sum = bytes.get(start..start.saturating_add(number(at + 16))).map(Fnv::of);
        if let Some(sum) = sum {
            put(bytes, at + 24, &sum.to_le_bytes());
        }
    }
}

#[test]
fn a_plan_survives_its_file() {
    let plan = sample();
    let bytes = plan.encode().unwrap();
    let back = decode(&bytes).unwrap();
    assert_eq!(back, plan);
    assert_eq!(back.encode().unwrap(), bytes);
    verify_checksums(&Blob::from(bytes)).unwrap();

    let x = Tensor::new([1, 1, 5, 4], (0..20).map(|i| (i as f32).sin()).collect()).unwrap();
    for flag in [false, true] {
        let inputs = BTreeMap::from([("x".to_owned(), x.clone()), ("flag".to_owned(), Tensor::scalar(flag))]);
        let run = |plan: &Plan| {
            Session::new(Arc::new(plan.clone()), SessionOptions::default()).unwrap().run(&inputs).unwrap()
        };
        assert_eq!(run(&plan), run(&back));
    }
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let dir = std::env::temp_dir().join(format!("convc-plan-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("m.convc");
    sample().save(&path).unwrap();
    sample().save(&path).unwrap();
    assert_eq!(Plan::load(&path).unwrap(), sample());
    assert!(sample().save(&dir.join("missing/m.convc")).is_err());
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn constants_are_aligned() {
    let bytes = sample().encode().unwrap();
    let sections = sections(&Blob::from(bytes.clone())).unwrap();
    assert_eq!(sections[1].kind, WEIGHTS);
    assert_eq!(sections[1].range.start % SECTION_ALIGN, 0);
    // The flag's default is the first constant, the kernel the second.
    let kernel = sections[1].range.start + CONSTANT_ALIGN;
    assert_eq!(bytes[kernel..kernel + 4], (-7.5f32).to_le_bytes());
}

#[test]
fn headers_that_lie_are_refused() {
    let good = sample().encode().unwrap();
    let with = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        put(&mut bytes, at, value);
        decode(&bytes).unwrap_err()
    };
    assert!(matches!(decode(b""), Err(PlanFileError::NotAPlan)));
    assert!(matches!(decode(&good[..7]), Err(PlanFileError::Header { .. })));
    assert!(matches!(decode(&good[..good.len() - 1]), Err(PlanFileError::Header { .. })));
    assert!(matches!(with(0, b"X"), PlanFileError::NotAPlan));
    assert!(matches!(with(6, &[2, 0]), PlanFileError::Version { found: 2 }));
    assert!(matches!(with(8, &u32::MAX.to_le_bytes()), PlanFileError::Header { .. }));
    for field in [8, 16] {
        assert!(matches!(with(PREFIX + field, &u64::MAX.to_le_bytes()), PlanFileError::Header { .. }));
    }
    assert!(matches!(with(PREFIX + ENTRY + 8, &4096u64.to_le_bytes()), PlanFileError::Header { .. }));
    assert!(matches!(with(PREFIX, &WEIGHTS.to_le_bytes()), PlanFileError::Header { .. }));
    assert!(matches!(with(SECTION_ALIGN + 3, &[0xff]), PlanFileError::Checksum { section: 0 }));

    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    decode(&bytes).unwrap();
    assert!(matches!(verify_checksums(&Blob::from(bytes)), Err(PlanFileError::Checksum { section: 1 })));
}

/// The file of a plan section with these records and 128 bytes of weights.
fn file(records: Vec<proto::record::Kind>) -> Vec<u8> {
    use prost::Message;
    let mut plan = Vec::new();
    for kind in records {
        proto::Record { kind: Some(kind) }.encode_length_delimited(&mut plan).unwrap();
    }
    let weights = round_up(SECTION_ALIGN + plan.len(), SECTION_ALIGN).unwrap();
    let mut bytes = vec![0; weights + 128];
    put(&mut bytes, 0, &MAGIC);
    put(&mut bytes, 6, &VERSION.to_le_bytes());
    put(&mut bytes, 8, &2u32.to_le_bytes());
    for (i, (kind, at, length)) in [(PLAN, SECTION_ALIGN, plan.len()), (WEIGHTS, weights, 128)].into_iter().enumerate()
    {
        put(&mut bytes, PREFIX + i * ENTRY, &kind.to_le_bytes());
        put(&mut bytes, PREFIX + i * ENTRY + 8, &(at as u64).to_le_bytes());
        put(&mut bytes, PREFIX + i * ENTRY + 16, &(length as u64).to_le_bytes());
    }
    put(&mut bytes, SECTION_ALIGN, &plan);
    seal(&mut bytes);
    bytes
}

#[test]
fn records_that_lie_are_refused() {
    use proto::record::Kind;
    let header = || Kind::Header(proto::Header::default());
    let begin = |slots| Kind::Begin(proto::BlockBegin { slots });
    let end = || Kind::End(proto::BlockEnd {});
    let data = |offset, length| proto::Tensor {
        dtype: "u8".into(),
        shape: vec![length],
        elements: Some(proto::tensor::Elements::Data(proto::Range { section: 1, offset, length })),
    };
    let block = |slots, kinds: Vec<Kind>| [vec![header(), begin(slots)], kinds, vec![end()]].concat();
    let constant = |slot, value| Kind::Constant(proto::Constant { slot, value: Some(value) });
    let message = |records| decode(&file(records)).map(|_| ()).unwrap_err().to_string();

    decode(&file(block(1, vec![constant(0, data(64, 64))]))).unwrap();
    assert_eq!(message(vec![]), "record 0 of the plan: there is no block");
    assert_eq!(message(vec![begin(0)]), "record 0 of the plan: the first record must be the header");
    assert_eq!(message(vec![header(), header()]), "record 1 of the plan: it is out of place");
    assert_eq!(message(vec![header(), begin(0)]), "record 2 of the plan: the last block does not end");
    assert_eq!(
        message([block(0, vec![]), vec![begin(0), end()]].concat()),
        "record 5 of the plan: a block is not used"
    );
    assert_eq!(
        message(block(u32::MAX, vec![])),
        "record 2 of the plan: the block claims 4294967295 values but writes at most 0"
    );
    let needs = proto::Header { requirements: vec!["Conv".into(), "Nonesuch".into()], ..Default::default() };
    assert_eq!(
        message(vec![Kind::Header(needs)]),
        "the plan needs operators that this runtime does not have: Nonesuch"
    );
    for (tensor, problem) in [
        (data(8, 8), "not a multiple of 64"),
        (data(64, 65), "outside the section"),
        (data(u64::MAX - 63, 64), "outside the section"),
        (proto::Tensor { dtype: "f31".into(), ..data(0, 8) }, "no element type \"f31\""),
        (proto::Tensor { shape: vec![u64::MAX, u64::MAX], ..data(0, 8) }, "do not fill"),
        (proto::Tensor { elements: None, ..data(0, 8) }, "do not fill"),
        (proto::Tensor { dtype: "str".into(), ..data(0, 8) }, "do not fill"),
    ] {
        let text = message(block(1, vec![constant(0, tensor)]));
        assert!(text.contains(problem), "{text}");
    }
    let many = (0..200).map(|i| constant(i, data(0, 128))).collect();
    assert!(message(block(200, many)).contains("overlap"));

    let step = |action| {
        Kind::Instruction(proto::Instruction {
            name: "i".into(),
            inputs: vec![1],
            outputs: vec![2],
            last_use: vec![],
            action,
        })
    };
    use proto::instruction::Action as Do;
    let unknown = message(block(2, vec![step(None)]));
    assert_eq!(unknown, "record 2 of the plan: this runtime does not know what instruction \"i\" does");
    let itself = Some(Do::Branches(proto::If { then_block: 0, else_block: 0 }));
    assert!(message(block(2, vec![step(itself)])).contains("does not exist yet"));
    let relu = || Some(Do::Operator(proto::Operator { name: "Relu".into(), attributes: vec![] }));
    assert!(message(block(1, vec![step(relu())])).contains("%0 is read but holds nothing"));
    let strange = proto::Attribute { name: "odd".into(), value: Some(proto::attribute::Value::Int(1)) };
    let odd = Some(Do::Operator(proto::Operator { name: "Relu".into(), attributes: vec![strange] }));
    assert!(message(block(1, vec![step(odd)])).contains("attribute odd of Relu"));
}

#[test]
fn nesting_is_bounded_both_ways() {
    let nest = |levels: usize| {
        let mut plan = Plan {
            inputs: vec![port("c", 0, DType::Bool, &[])],
            outputs: vec![port("c", 0, DType::Bool, &[])],
            slots: 1,
            ..Plan::default()
        };
        for _ in 0..levels {
            let branch = Arc::new(plan);
            let step = Instruction {
                name: "if".into(),
                action: Action::If {
                    then_branch: Arc::clone(&branch),
                    else_branch: Arc::new(Plan {
                        instructions: vec![],
                        outputs: branch.inputs.clone(),
                        slots: 1,
                        ..(*branch).clone()
                    }),
                },
                inputs: vec![Some(Slot(0)), Some(Slot(0))],
                outputs: vec![Some(Slot(1))],
                last_use: vec![],
            };
            plan = Plan {
                inputs: vec![port("c", 0, DType::Bool, &[])],
                outputs: vec![port("y", 1, DType::Bool, &[])],
                instructions: vec![step],
                slots: 2,
                constants: vec![],
            };
        }
        plan
    };
    let deep = nest(MAX_DEPTH);
    assert_eq!(decode(&deep.encode().unwrap()).unwrap(), deep);
    assert!(matches!(nest(MAX_DEPTH + 1).encode(), Err(PlanFileError::TooDeep)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever happens to a file, reading it gives a plan that a session accepts or refuses, or an error: never a panic.
    #[test]
    fn mutated_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        sealed in any::<bool>(),
    ) {
        let mut bytes = sample().encode().unwrap();
        let plan_end = SECTION_ALIGN + 1024;
        for (at, value, how) in edits {
            // The bytes that mean something: header and plan.
            let i = at.index(PREFIX + 2 * ENTRY + 1024);
            let i = if i < PREFIX + 2 * ENTRY { i } else { i - PREFIX - 2 * ENTRY + SECTION_ALIGN };
            match how {
                0 => bytes[i] = value,
                1 => bytes[i] ^= 1 << (value % 8),
                2 => bytes.copy_within(i..(i + 16).min(plan_end), SECTION_ALIGN + usize::from(value)),
                _ => bytes[i] = bytes[i].wrapping_add(1),
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if sealed {
            seal(&mut bytes);
        }
        if let Ok(plan) = decode(&bytes) {
            let again = plan.encode().unwrap();
            prop_assert_eq!(&decode(&again).unwrap(), &plan);
            let _ = Session::new(Arc::new(plan), SessionOptions::default());
        }
    }
}
