use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, SparseTensorProto, TypeProto, tensor_shape_proto, type_proto,
};
use proptest::prelude::*;
use protobuf::{EnumOrUnknown, MessageField};

use super::*;

const LIMITS: WireLimits = WireLimits { depth: 100, messages: 1_000_000, elide: 1024 };

fn tensor(name: &str, len: usize) -> TensorProto {
    TensorProto {
        dims: vec![1, i64::MAX, -1],
        data_type: 2,
        name: name.into(),
        raw_data: (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect(),
        ..Default::default()
    }
}

fn attribute(name: &str) -> AttributeProto {
    AttributeProto { name: name.into(), ints: vec![3, -3], ..Default::default() }
}

fn graph(levels: usize) -> GraphProto {
    let mut dim = tensor_shape_proto::Dimension::new();
    dim.set_dim_param("batch".into());
    let shape = onnx_protobuf::TensorShapeProto { dim: vec![dim; 2], ..Default::default() };
    let mut ty = TypeProto::new();
    ty.set_tensor_type(type_proto::Tensor { elem_type: 1, shape: MessageField::some(shape), ..Default::default() });
    let value =
        onnx_protobuf::ValueInfoProto { name: "x".into(), type_: MessageField::some(ty.clone()), ..Default::default() };
    let sparse = SparseTensorProto {
        values: MessageField::some(tensor("values", 1500)),
        indices: MessageField::some(tensor("indices", 8)),
        dims: vec![4, 4],
        ..Default::default()
    };
    let mut branch = attribute("then_branch");
    branch.type_ = EnumOrUnknown::from_i32(5);
    branch.g = (levels > 0).then(|| graph(levels - 1)).into();
    let mut many = attribute("all");
    many.f = 0.5;
    many.s = vec![0xff, 0x00];
    many.t = MessageField::some(tensor("t", 1024));
    many.floats = vec![1.0, f32::NEG_INFINITY];
    many.strings = vec![b"a".to_vec(), vec![0xfe]];
    many.tensors = vec![tensor("a", 0), tensor("b", 1023), tensor("c", 5000)];
    many.sparse_tensor = MessageField::some(sparse.clone());
    many.tp = MessageField::some(ty);
    let mut numbers = tensor("numbers", 0);
    numbers.float_data = vec![0.25; 3];
    numbers.int32_data = vec![-1, i32::MAX];
    numbers.int64_data = vec![i64::MIN, 7];
    numbers.double_data = vec![2.5];
    numbers.uint64_data = vec![u64::MAX];
    numbers.string_data = vec![vec![0xff; 2000]];
    GraphProto {
        name: format!("graph {levels}"),
        node: vec![NodeProto {
            input: vec!["x".into(), String::new()],
            output: vec!["y".into()],
            op_type: "If".into(),
            attribute: vec![branch, many],
            ..Default::default()
        }],
        initializer: vec![tensor("small", 40), tensor("large", 70_000), numbers],
        sparse_initializer: vec![sparse],
        input: vec![value],
        ..Default::default()
    }
}

fn model() -> ModelProto {
    ModelProto {
        ir_version: 8,
        producer_name: "tests – é".into(),
        graph: MessageField::some(graph(2)),
        training_info: vec![onnx_protobuf::TrainingInfoProto {
            algorithm: MessageField::some(graph(0)),
            ..Default::default()
        }],
        functions: vec![FunctionProto {
            name: "f".into(),
            attribute_proto: vec![AttributeProto {
                t: MessageField::some(tensor("in function", 3000)),
                ..Default::default()
            }],
            node: graph(1).node,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn join_tensor(t: &mut TensorProto, bytes: &[u8], payloads: &[Range<usize>]) -> usize {
    let Some(index) = payload_index(t) else {
        return 0;
    };
    assert!(t.raw_data.is_empty());
    t.raw_data = bytes[payloads[index].clone()].to_vec();
    t.special_fields = Default::default();
    1
}

fn join_nodes(nodes: &mut [NodeProto], bytes: &[u8], payloads: &[Range<usize>]) -> usize {
    let attributes = nodes.iter_mut().flat_map(|n| &mut n.attribute);
    attributes.map(|a| join_attribute(a, bytes, payloads)).sum()
}

fn join_attribute(a: &mut AttributeProto, bytes: &[u8], payloads: &[Range<usize>]) -> usize {
    let tensors = a.t.as_mut().into_iter().chain(&mut a.tensors);
    let sparse = a.sparse_tensor.as_mut().into_iter().chain(&mut a.sparse_tensors);
    let sparse = sparse.flat_map(|s| s.values.as_mut().into_iter().chain(s.indices.as_mut()));
    let own: usize = tensors.chain(sparse).map(|t| join_tensor(t, bytes, payloads)).sum();
    let graphs = a.g.as_mut().into_iter().chain(&mut a.graphs);
    own + graphs.map(|g| join_graph(g, bytes, payloads)).sum::<usize>()
}

fn join_graph(g: &mut GraphProto, bytes: &[u8], payloads: &[Range<usize>]) -> usize {
    let sparse = g.sparse_initializer.iter_mut();
    let sparse = sparse.flat_map(|s| s.values.as_mut().into_iter().chain(s.indices.as_mut()));
    let tensors = g.initializer.iter_mut().chain(sparse);
    let own: usize = tensors.map(|t| join_tensor(t, bytes, payloads)).sum();
    own + join_nodes(&mut g.node, bytes, payloads)
}

/// Puts the payloads back and returns how many there were.
fn join(m: &mut ModelProto, bytes: &[u8], payloads: &[Range<usize>]) -> usize {
    let training = m.training_info.iter_mut();
    let training = training.flat_map(|t| t.initialization.as_mut().into_iter().chain(t.algorithm.as_mut()));
    let graphs = m.graph.as_mut().into_iter().chain(training);
    let mut count: usize = graphs.map(|g| join_graph(g, bytes, payloads)).sum();
    for f in &mut m.functions {
        count += join_nodes(&mut f.node, bytes, payloads);
        count += f.attribute_proto.iter_mut().map(|a| join_attribute(a, bytes, payloads)).sum::<usize>();
    }
    count
}

fn varint(n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    push_varint(&mut out, n);
    out
}

/// A length-delimited field.
fn field(number: u32, body: &[u8]) -> Vec<u8> {
    [varint(u64::from(number << 3 | LENGTH)), varint(wide(body.len())), body.to_vec()].concat()
}

fn refusal(bytes: &[u8]) -> String {
    scan(bytes, &LIMITS).unwrap_err().to_string()
}

#[test]
fn joins_to_the_original() {
    let original = model();
    let bytes = original.write_to_bytes().unwrap();
    for elide in [0, 16, 40, 1024, 5000, usize::MAX] {
        let limits = WireLimits { elide, ..LIMITS };
        let scanned = scan(&bytes, &limits).unwrap();
        let elided: usize = scanned.payloads.iter().map(Range::len).sum();
        assert!(scanned.skeleton.len() <= bytes.len());
        assert!(scanned.skeleton.len() + elided <= bytes.len() + 8 * scanned.payloads.len());
        let (mut parsed, payloads) = parse(&bytes, &limits).unwrap();
        assert_eq!(payloads, scanned.payloads);
        assert_eq!(join(&mut parsed, &bytes, &payloads), payloads.len());
        assert_eq!(parsed, original);
    }
    assert_eq!(scan(&bytes, &WireLimits { elide: usize::MAX, ..LIMITS }).unwrap().payloads, []);
    assert!(scan(&bytes, &LIMITS).unwrap().payloads.len() > 10);
    assert!(scan(&[], &LIMITS).unwrap().skeleton.is_empty());
}

#[test]
fn scans_a_lone_tensor() {
    for len in [0, 15, 1023, 1024, 100_000] {
        let original = tensor("lone", len);
        let bytes = original.write_to_bytes().unwrap();
        let (mut parsed, payloads) = parse_tensor(&bytes, &LIMITS).unwrap();
        assert_eq!(payload_index(&parsed), (len >= 1024).then_some(0));
        join_tensor(&mut parsed, &bytes, &payloads);
        assert_eq!(parsed, original);
    }
}

#[test]
fn last_raw_data_counts() {
    let (small, large) = (field(9, &[1; 20]), field(9, &[2; 2000]));
    for parts in [[&small, &large], [&large, &small], [&small, &small], [&large, &large]] {
        let bytes = [parts[0].as_slice(), &field(8, b"name"), parts[1]].concat();
        let expected = TensorProto::parse_from_bytes(&bytes).unwrap();
        let (mut parsed, payloads) = parse_tensor(&bytes, &LIMITS).unwrap();
        assert_eq!(payloads.len(), usize::from(parts[1].len() > 1024));
        join_tensor(&mut parsed, &bytes, &payloads);
        assert_eq!(parsed, expected);
    }
}

#[test]
fn markers_and_unknown_fields_of_the_file_are_dropped() {
    let forged = [varint(u64::from(MARKER << 3)), varint(1)].concat();
    let unknown = [field(77, &[0xff; 9]), vec![0x7d, 1, 2, 3, 4], vec![0x79; 9]].concat();
    let bytes = [forged.as_slice(), &field(9, &[7; 3]), &unknown, &field(8, b"n"), &forged].concat();
    let (parsed, payloads) = parse_tensor(&bytes, &LIMITS).unwrap();
    assert_eq!((payload_index(&parsed), payloads), (None, vec![]));
    assert_eq!((parsed.raw_data.as_slice(), parsed.name.as_str()), (&[7; 3][..], "n"));
    assert!(parsed.special_fields.unknown_fields().iter().next().is_none());

    let node = [unknown.as_slice(), &field(4, b"Relu")].concat();
    let (parsed, _) = parse(&field(7, &field(1, &node)), &LIMITS).unwrap();
    assert_eq!(parsed.graph.node[0].op_type, "Relu");
}

#[test]
fn packed_and_unpacked_numbers_are_alike() {
    let packed = [field(1, &[1, 2]), field(4, &[0; 8]), field(5, &[5]), field(10, &[0; 8])].concat();
    let float = [0x25, 0, 0, 0, 0];
    let double = [0x51, 0, 0, 0, 0, 0, 0, 0, 0];
    let loose = [&[8, 1, 8, 2][..], &float, &float, &[0x28, 5], &double].concat();
    let parsed = parse_tensor(&packed, &LIMITS).unwrap().0;
    assert_eq!(parsed, parse_tensor(&loose, &LIMITS).unwrap().0);
    assert_eq!((parsed.dims.len(), parsed.float_data.len(), parsed.double_data.len()), (2, 2, 1));
}

#[test]
fn every_refusal_says_where_and_why() {
    let in_node = |body: &[u8]| field(7, &[field(1, b""), field(1, body)].concat());
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![0x08], "ir_version (byte 1) breaks off in the middle of a field"),
        (vec![0x80], "the outermost message (byte 0) breaks off in the middle of a field"),
        (vec![0x79, 0], "the outermost message (byte 1) breaks off in the middle of a field"),
        ([&[8][..], &[0xff; 9], &[2]].concat(), "ir_version (byte 1) holds a varint of more than 64 bits"),
        ([&[8][..], &[0x80; 10], &[0]].concat(), "ir_version (byte 1) holds a varint of more than 64 bits"),
        (vec![0x88, 0x80, 0x80, 0x80, 0x80, 0], "the outermost message (byte 0) holds a varint of more than 32 bits"),
        (vec![0x3a, 5, 0], "graph (byte 1) declares 5 bytes where the enclosing message has 1 left"),
        (
            in_node(&[0x0a, 1]),
            "graph.node[1].input[0] (byte 7) declares 1 bytes where the enclosing message has 0 left",
        ),
        (vec![0], "the outermost message (byte 0) holds a field of number 0, which protobuf does not allow"),
        (in_node(&[0x0b]), "graph.node[1] (byte 6) holds a protobuf group, which ONNX does not use"),
        (vec![0x0c], "the outermost message (byte 0) holds a protobuf group, which ONNX does not use"),
        (vec![0x7e], "the outermost message (byte 0) holds a field of wire type 6, which protobuf does not define"),
        (vec![0x7f], "the outermost message (byte 0) holds a field of wire type 7, which protobuf does not define"),
        (vec![0x38, 0], "graph (byte 0) has wire type 0 although the ONNX schema makes it a message"),
        (vec![0x0a, 0], "ir_version (byte 0) has wire type 2 although the ONNX schema makes it an integer"),
        (vec![0x10, 0], "producer_name (byte 0) has wire type 0 although the ONNX schema makes it a string"),
        (in_node(&field(4, b"R\xff")), "graph.node[1].op_type (byte 9) is not valid UTF-8"),
        (
            in_node(&field(5, &field(7, &[0; 6]))),
            "graph.node[1].attribute[0].floats[0] (byte 8) packs numbers of 4 bytes into 6 bytes, which leaves a fraction of one",
        ),
        (
            in_node(&field(5, &field(5, &[0x10, 0xff, 0xff, 0xff, 0xff, 0x0f]))),
            "graph.node[1].attribute[0].t.data_type (byte 11) holds 4294967295, which does not fit in 32 bits",
        ),
        (
            in_node(&field(5, &field(5, &field(7, &[0x80])))),
            "graph.node[1].attribute[0].t.int64_data[0] (byte 12) breaks off in the middle of a field",
        ),
        (
            [field(7, b""), field(7, b"")].concat(),
            "graph (byte 2) occurs in a message that already holds it or an alternative to it",
        ),
        (
            field(7, &field(11, &field(2, &[field(1, b""), field(4, b"")].concat()))),
            "graph.input[0].type.sequence_type (byte 8) occurs in a message that already holds it or an alternative to it",
        ),
    ];
    for (bytes, message) in cases {
        assert_eq!(&refusal(bytes), message);
    }
    let few = WireLimits { messages: 3, ..LIMITS };
    let bytes = in_node(&field(1, b"x"));
    assert_eq!(
        scan(&bytes, &few).unwrap_err().to_string(),
        "graph.node[1].input[0] (byte 6) is one message or string more than the 3 allowed in a file"
    );
    assert!(scan(&bytes, &WireLimits { messages: 4, ..LIMITS }).is_ok());
    let shallow = WireLimits { depth: 1, ..LIMITS };
    assert!(matches!(scan(&bytes, &shallow), Err(WireError::Depth { at: Site { offset: 2, .. }, limit: 1 })));
}

/// `levels` messages, each the only field of the one before: an attribute's graph's node's attribute and so on.
fn nested(levels: usize) -> Vec<u8> {
    let cycle = [6, 1, 5];
    let mut reversed = Vec::new();
    for level in (0..levels).rev() {
        let number = if level == 0 { 7 } else { cycle[level % 3] };
        let header = [varint(u64::from(number << 3 | LENGTH)), varint(wide(reversed.len()))].concat();
        reversed.extend(header.iter().rev());
    }
    reversed.reverse();
    reversed
}

#[test]
fn depth_is_bounded() {
    assert!(parse(&nested(100), &LIMITS).is_ok());
    for levels in [101, 1_000_000] {
        let deep = nested(levels);
        let unbounded = WireLimits { depth: usize::MAX, ..LIMITS };
        for limits in [LIMITS, unbounded] {
            assert!(matches!(scan(&deep, &limits), Err(WireError::Depth { limit: 100, .. })));
        }
    }
    assert!(matches!(scan(&[0x7b; 1_000_000], &LIMITS), Err(WireError::Group { .. })));
    let inside = field(7, &field(1, &[0x7b; 1_000_000]));
    assert!(matches!(scan(&inside, &LIMITS), Err(WireError::Group { .. })));
}

#[test]
fn many_tiny_messages_stay_small() {
    let limits = WireLimits { messages: usize::MAX, ..LIMITS };
    let bytes = field(7, &[0x0a, 0x00].repeat(1_000_000));
    assert_eq!(scan(&bytes, &limits).unwrap().skeleton, bytes);
    assert!(matches!(scan(&bytes, &LIMITS), Err(WireError::Count { .. })));
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(u8),
    Flip(u8),
    Insert(Vec<u8>),
    Delete(usize),
    Truncate,
    Copy(usize, usize),
}

fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, Mutation)>> {
    let tags = prop::sample::select(vec![
        vec![0x0b],
        vec![0x0c],
        vec![0x7e],
        vec![0],
        vec![0xff; 10],
        vec![0x80, 0],
        vec![0x3a, 0],
        vec![0x4a, 1, 2],
        vec![0xc8, 0xab, 0x30, 1],
        vec![0xff, 0xff, 0xff, 0xff, 0x0f],
    ]);
    let one = prop_oneof![
        any::<u8>().prop_map(Mutation::Set),
        (0..8u32).prop_map(|bit| Mutation::Flip(1 << bit)),
        tags.prop_map(Mutation::Insert),
        prop::collection::vec(any::<u8>(), 1..6).prop_map(Mutation::Insert),
        (1..20usize).prop_map(Mutation::Delete),
        Just(Mutation::Truncate),
        (1..50usize, 1..50usize).prop_map(|(length, back)| Mutation::Copy(length, back)),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), one), 1..6)
}

fn mutate(bytes: &mut Vec<u8>, changes: Vec<(prop::sample::Index, Mutation)>) {
    for (index, mutation) in changes {
        if bytes.is_empty() {
            return;
        }
        let at = index.index(bytes.len());
        match mutation {
            Mutation::Set(byte) => bytes[at] = byte,
            Mutation::Flip(mask) => bytes[at] ^= mask,
            Mutation::Insert(new) => drop(bytes.splice(at..at, new)),
            Mutation::Delete(length) => drop(bytes.drain(at..bytes.len().min(at + length))),
            Mutation::Truncate => bytes.truncate(at),
            Mutation::Copy(length, back) => {
                let from = at.saturating_sub(back);
                let copy = bytes[from..at.min(from + length)].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

/// What holds of any bytes: no panic, and the parser takes every skeleton and finds each payload once.
fn check(bytes: &[u8], limits: &WireLimits) {
    let Ok(scanned) = scan(bytes, limits) else {
        return;
    };
    let elided: usize = scanned.payloads.iter().map(Range::len).sum();
    assert!(scanned.skeleton.len() <= bytes.len());
    assert!(scanned.skeleton.len() + elided <= bytes.len() + 8 * scanned.payloads.len());
    let mut parsed = ModelProto::parse_from_bytes(&scanned.skeleton).unwrap();
    assert_eq!(join(&mut parsed, bytes, &scanned.payloads), scanned.payloads.len());
    let mut whole = ModelProto::parse_from_bytes(bytes).unwrap();
    let known = scan(&whole.write_to_bytes().unwrap(), &WireLimits { elide: usize::MAX, ..*limits });
    whole = ModelProto::parse_from_bytes(&known.unwrap().skeleton).unwrap();
    // As bytes, for a float may be NaN.
    assert_eq!(parsed.write_to_bytes().unwrap(), whole.write_to_bytes().unwrap());
    let again = scan(&scanned.skeleton, &WireLimits { elide: usize::MAX, ..*limits }).unwrap();
    assert_eq!(again.payloads, []);
}

/// A random message that is valid, though oddly encoded: fields in any order and number, unknown fields and
/// forged markers between them, padded lengths.
fn build(schema: &Schema, choices: &mut impl Iterator<Item = u8>, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut used = Vec::new();
    for _ in 0..choices.next().unwrap() % 8 {
        let (pick, n) = (choices.next().unwrap(), choices.next().unwrap());
        let odd = n % 2 == 1;
        if pick >= 240 {
            out.extend(if odd { field(500, &[n; 40]) } else { field(MARKER, &[1]) });
            out.extend([varint(u64::from(MARKER << 3)), varint(u64::from(n))].concat());
            continue;
        }
        let f = &schema.fields[usize::from(pick) % schema.fields.len()];
        let many = f.label == Label::Many;
        let (wire, body) = match f.data {
            Data::Message(child) => {
                let exclusive = if f.label == Label::Choice { 0 } else { f.number };
                if depth == 0 || (!many && used.contains(&exclusive)) {
                    continue;
                }
                used.push(exclusive);
                (LENGTH, build(child, choices, depth - 1))
            }
            Data::String => (LENGTH, "é".repeat(usize::from(n % 4)).into_bytes()),
            Data::Bytes | Data::Raw => (LENGTH, vec![pick; usize::from(n)]),
            Data::Int32 | Data::Int64 if many && odd => (LENGTH, vec![n & 0x7f; 3]),
            Data::Fixed32 | Data::Fixed64 if many && odd => (LENGTH, vec![1; 16]),
            Data::Int32 | Data::Int64 => (VARINT, varint(u64::from(n))),
            Data::Fixed32 => (FIXED32, vec![n; 4]),
            Data::Fixed64 => (FIXED64, vec![n; 8]),
        };
        push_varint(&mut out, u64::from(f.number << 3 | wire));
        if wire == LENGTH {
            push_varint(&mut out, wide(body.len()));
            if n % 4 == 3 {
                *out.last_mut().unwrap() |= 0x80;
                out.push(0);
            }
        }
        out.extend(body);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_models_never_panic(changes in mutations(), elide in prop::sample::select(vec![0, 20, 1024])) {
        let mut small = graph(1);
        small.initializer[1].raw_data.truncate(30);
        small.sparse_initializer.clear();
        let mut all = small.node[0].attribute.pop().unwrap();
        all.sparse_tensor = MessageField::none();
        all.tensors.truncate(1);
        small.node[0].attribute.push(all);
        let model = ModelProto { graph: MessageField::some(small), ..Default::default() };
        let mut bytes = model.write_to_bytes().unwrap();
        mutate(&mut bytes, changes);
        check(&bytes, &WireLimits { elide, ..LIMITS });
    }

    #[test]
    fn mutated_tags_never_panic(changes in mutations()) {
        // Little but structure, so that most mutations hit a tag or a length.
        let node = [field(1, b"x"), field(5, &field(5, &[field(9, &[3; 40]), vec![16, 1]].concat()))].concat();
        let mut bytes = field(7, &[field(1, &node), field(5, &field(9, &[1; 20])), field(2, b"g")].concat());
        mutate(&mut bytes, changes);
        check(&bytes, &WireLimits { elide: 16, ..LIMITS });
    }

    #[test]
    fn valid_messages_are_accepted(
        choices in prop::collection::vec(any::<u8>(), 20..400),
        changes in mutations(),
        elide in prop::sample::select(vec![0, 50, 200]),
    ) {
        let limits = WireLimits { elide, ..LIMITS };
        let mut choices = choices.into_iter().chain(std::iter::repeat(0));
        let mut bytes = field(7, &build(&GRAPH, &mut choices, 8));
        bytes.extend(field(25, &build(&FUNCTION, &mut choices, 8)));
        prop_assert!(scan(&bytes, &limits).is_ok());
        check(&bytes, &limits);
        mutate(&mut bytes, changes);
        check(&bytes, &limits);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        check(&bytes, &LIMITS);
        let _ = parse_tensor(&bytes, &LIMITS);
    }
}
