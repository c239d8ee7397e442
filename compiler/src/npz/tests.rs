use std::io::Cursor;

use convc_runtime::Tensor;
use half::{bf16, f16};
use proptest::prelude::*;

use super::*;

fn tensors() -> Vec<(&'static str, Tensor)> {
    vec![
        ("input:0", Tensor::new([2, 3], vec![1.5f32, -2.0, f32::MAX, f32::MIN_POSITIVE, 0.0, -0.0]).unwrap()),
        ("/block/a/../b", Tensor::scalar(7i64)),
        ("half", Tensor::vector(vec![f16::from_f32(0.1); 3])),
        ("bf", Tensor::vector(vec![bf16::from_f32(0.1); 3])),
        ("flags", Tensor::new([1, 2], vec![true, false]).unwrap()),
        ("none", Tensor::new([0, 4], Vec::<u8>::new()).unwrap()),
        ("text", Tensor::vector(vec!["é".to_owned(), String::new(), "abc".to_owned()])),
        ("é 1", Tensor::vector(vec![1u64, u64::MAX])),
    ]
}

fn bytes() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    write_npz(&path, tensors().iter().map(|(n, t)| (*n, t))).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn tensors_and_names_survive() {
    let read = read_archive(Cursor::new(bytes()), Path::new("x.npz")).unwrap();
    let expected: Vec<(String, Tensor)> = tensors().into_iter().map(|(n, t)| (n.to_owned(), t)).collect();
    assert_eq!(read, expected);
    assert_eq!(bytes(), bytes());
}

fn npy(descr: &str, fortran: &str, shape: &str, elements: &[u8]) -> Result<Tensor, String> {
    let header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(elements);
    read_array(&mut bytes.as_slice(), &mut { MAX_BYTES }).map_err(|p| p.at(Path::new("x"), "").to_string())
}

#[test]
fn byte_and_dimension_order_are_undone() {
    assert_eq!(npy("'>i2'", "False", "(2,)", &[1, 2, 0, 3]).unwrap(), Tensor::vector(vec![258i16, 3]));
    let t = npy("'|u1'", "True", "(2, 3)", &[1, 4, 2, 5, 3, 6]).unwrap();
    assert_eq!(t, Tensor::new([2, 3], vec![1u8, 2, 3, 4, 5, 6]).unwrap());
    assert_eq!(npy("'|S2'", "False", "(2,)", b"ab\0\0").unwrap(), Tensor::vector(vec!["ab".to_owned(), String::new()]));
    assert_eq!(npy("'<f4'", "False", "()", &1f32.to_le_bytes()).unwrap(), Tensor::scalar(1f32));
}

#[test]
fn hostile_arrays_are_refused() {
    for (descr, shape, elements, problem) in [
        ("'|u1'", "(18446744073709551615, 18446744073709551615)", &[][..], "overflows"),
        ("'|u1'", "(99999999999999999999999,)", &[][..], "malformed"),
        ("'|u1'", "(4000000000000,)", &[][..], "more than"),
        ("'|u1'", "(-1,)", &[][..], "malformed"),
        ("'|u1'", "(4,)", &[1, 2][..], "2 bytes of elements where 4"),
        ("'|u1'", "(1,)", &[1, 2][..], "2 bytes of elements where 1"),
        ("'|O'", "(1,)", &[0; 8][..], "pickled"),
        ("[('a', '<f4')]", "(1,)", &[0; 4][..], "structured"),
        ("'<c8'", "(1,)", &[0; 8][..], "no tensor has"),
        ("'<U1'", "(1,)", &[0xff; 4][..], "no valid text"),
        ("'<U99999999999999999999'", "(1,)", &[][..], "no tensor has"),
        ("'<U0'", "(99999999999999,)", &[][..], "strings"),
    ] {
        let message = npy(descr, "False", shape, elements).unwrap_err();
        assert!(message.contains(problem), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_archives_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = bytes();
        for (at, value) in edits {
            let i = at.index(bytes.len());
            bytes[i] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read_archive(Cursor::new(bytes), Path::new("x.npz"));
    }
}
