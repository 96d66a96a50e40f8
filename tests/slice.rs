//! Slices: order, digests, copies, layouts and files.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

use std::collections::BTreeMap;
use std::fs;

use fellrec::model::slice::{LayoutError, NamedTensor, Part, Slice, SliceFileError, Theta};
use proptest::prelude::*;
use tch::{Kind, Tensor, kind::FLOAT_CPU};

fn slice() -> Slice {
    Slice::new(vec![
        NamedTensor::new(
            "layers.10.w",
            Tensor::from_slice(&[1.0f32, -0.0, 3.5, 1e-42]).view([2, 2]),
        ),
        NamedTensor::new("layers.9.w", Tensor::from_slice(&[0.25f32]).to_kind(Kind::BFloat16)),
        NamedTensor::new("empty", Tensor::zeros([0, 3], FLOAT_CPU)),
        NamedTensor::new("scale", Tensor::from(2.5f32)),
    ])
}

#[test]
fn tensors_stand_in_natural_order() {
    let slice = slice();
    let names: Vec<&str> = slice.tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["empty", "layers.9.w", "layers.10.w", "scale"]);
    assert_eq!((slice.numel(), slice.bytes()), (6, 22));
    assert_eq!(slice.squared_norm(), 1.0 + 3.5 * 3.5 + 0.25 * 0.25 + 2.5 * 2.5);
}

#[test]
fn digest_sees_names_types_shapes_and_bits() {
    let digest =
        |name: &str, tensor: Tensor| Slice::new(vec![NamedTensor::new(name, tensor)]).digest();
    let values = || Tensor::from_slice(&[0.0f32, 1.0]);
    let original = digest("w", values());
    assert_eq!(original, digest("w", values()));
    assert_eq!(original.as_str().len(), 64);
    assert_ne!(original, digest("v", values()));
    assert_ne!(original, digest("w", values().view([2, 1])));
    assert_ne!(original, digest("w", Tensor::from_slice(&[-0.0f32, 1.0])));
    assert_ne!(original, digest("w", values().view_dtype(Kind::Int)));
    // The memory layout of equal values is no difference.
    let square = Tensor::arange(4, FLOAT_CPU).view([2, 2]);
    assert_eq!(digest("w", square.tr()), digest("w", square.tr().contiguous()));
}

#[test]
fn deep_copies_share_nothing() {
    let original = slice();
    let copy = original.deep_copy();
    assert!(original.shares_storage(&original) && !original.shares_storage(&copy));
    let before = copy.digest();
    let _ = original.get("layers.10.w").unwrap().shallow_clone().fill_(9.0);
    assert_eq!(copy.digest(), before);
    // A view into the middle shares as well.
    let whole = Tensor::zeros([8], FLOAT_CPU);
    let of = |tensor| Slice::new(vec![NamedTensor::new("w", tensor)]);
    assert!(of(whole.shallow_clone()).shares_storage(&of(whole.narrow(0, 3, 2))));
    assert!(!of(whole.narrow(0, 0, 3)).shares_storage(&of(whole.narrow(0, 3, 2))));
}

#[test]
fn layouts_are_compared_by_name_shape_and_type() {
    let expected = slice();
    assert_eq!(slice().same_layout(&expected), Ok(()));
    let without = |name: &str| {
        let mut slice = slice();
        slice.tensors.retain(|t| t.name != name);
        slice
    };
    let name = || "layers.9.w".to_owned();
    assert_eq!(
        without("layers.9.w").same_layout(&expected),
        Err(LayoutError::Missing { name: name() })
    );
    assert_eq!(
        expected.same_layout(&without("layers.9.w")),
        Err(LayoutError::Unexpected { name: name() })
    );
    let last = || "scale".to_owned();
    assert_eq!(without("scale").same_layout(&expected), Err(LayoutError::Missing { name: last() }));
    assert_eq!(
        expected.same_layout(&without("scale")),
        Err(LayoutError::Unexpected { name: last() })
    );
    let mut other = slice();
    other.tensors[1].tensor = Tensor::zeros([1], FLOAT_CPU);
    assert_eq!(
        other.same_layout(&expected).unwrap_err().to_string(),
        "tensor layers.9.w has type Float, expected BFloat16"
    );
    other.tensors[1].tensor = Tensor::zeros([2], FLOAT_CPU);
    assert!(matches!(other.same_layout(&expected), Err(LayoutError::Shape { .. })));
}

#[test]
fn a_theta_is_walked_front_to_back() {
    let one = |name: &str| Slice::new(vec![NamedTensor::new(name, Tensor::zeros([1], FLOAT_CPU))]);
    let theta = Theta { front: one("z"), body: one("m"), back: one("a") };
    let walk: Vec<_> = theta.iter().map(|(part, t)| (part, t.name.as_str())).collect();
    assert_eq!(walk, [(Part::Front, "z"), (Part::Body, "m"), (Part::Back, "a")]);
    let _ = theta.back.tensors[0].tensor.shallow_clone().fill_(f64::NAN);
    assert_eq!(theta.has_non_finite(), Some("a"));
}

#[test]
fn files_keep_every_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("front.safetensors");
    let metadata = BTreeMap::from([("round".to_owned(), "3".to_owned())]);
    slice().write(&path, &metadata).unwrap();
    let back = Slice::read(&path).unwrap();
    assert_eq!(back.digest(), slice().digest());
    let empty = folder.path().join("body.safetensors");
    Slice::default().write(&empty, &metadata).unwrap();
    assert_eq!(Slice::read(&empty).unwrap().digest(), Slice::default().digest());
}

#[test]
fn broken_files_are_errors_that_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("front.safetensors");
    assert!(matches!(Slice::read(&path), Err(SliceFileError::Io { .. })));
    slice().write(&path, &BTreeMap::new()).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let message = Slice::read(&path).unwrap_err().to_string();
        assert!(message.contains("front.safetensors"), "{message}");
    }
    fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    assert!(matches!(Slice::read(&path), Err(SliceFileError::HeaderLength { .. })));
    let header = br#"{"w":{"dtype":"F32","shape":[0,9223372036854775809],"data_offsets":[0,0]}}"#;
    let mut huge = (header.len() as u64).to_le_bytes().to_vec();
    huge.extend(header);
    fs::write(&path, huge).unwrap();
    assert!(Slice::read(&path).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_byte_is_never_a_panic(position in 0usize..400, value in any::<u8>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("front.safetensors");
        slice().write(&path, &BTreeMap::new()).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let position = position % bytes.len();
        bytes[position] = value;
        fs::write(&path, bytes).unwrap();
        let _ = Slice::read(&path);
    }
}

/// A back without blocks, norm and adapters, as under an encoder with `split.k_back = 0`.
#[test]
fn a_slice_without_tensors_is_written_and_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("empty.safetensors");
    for metadata in [BTreeMap::new(), BTreeMap::from([("round".to_owned(), "3".to_owned())])] {
        Slice::default().write(&path, &metadata).expect("writable");
        assert!(Slice::read(&path).expect("its own file").tensors.is_empty());
    }
}
