//! Messages as bytes (protocol.md 3, architecture.md 4): what is written is read back with the same bits; bytes
//! that are no message of ours are an error, never a panic, and cost no memory beyond what they are long.
//!
//! `FELLREC_FUZZ` sets the number of hostile inputs, half a million a second or so on one core.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use fellrec::federation::collection::SubmittedSlice;
use fellrec::ids::ClientId;
use fellrec::model::slice::{NamedTensor, Slice};
use fellrec::seed;
use fellrec::split::wire::{WireError, decode, encode};
use fellrec::split::{DecodeTurn, HiddenStates, SplitError};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Largest single allocation of this thread since it was last set to 0.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

#[allow(unsafe_code, reason = "an allocator is the only witness of an allocation")]
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // At the end of a thread there is no counter any more.
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes that decoding may allocate at once for each byte of the input.
const PER_BYTE: usize = 4;
/// And for none: serde makes room for a mebibyte of elements at most, whatever a length claims.
const AT_LEAST: usize = (1 << 20) + (16 << 10);

/// One of everything that messages are made of.
#[derive(Debug, Serialize, Deserialize)]
struct Everything {
    text: String,
    numbers: Vec<i64>,
    clients: std::collections::BTreeMap<ClientId, Vec<String>>,
    turn: DecodeTurn,
    hidden: HiddenStates,
    submitted: SubmittedSlice,
    refusal: Result<(), SplitError>,
}

fn slice() -> Slice {
    let tensor = |shape: &[i64]| {
        Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, Device::Cpu)).view(shape)
    };
    Slice::new(vec![
        NamedTensor::new("layers.9.lora_a", tensor(&[2, 3])),
        NamedTensor::new("layers.10.lora_a", tensor(&[3, 2]).to_kind(Kind::BFloat16)),
        NamedTensor::new("norm", tensor(&[4]).to_kind(Kind::Double)),
    ])
}

fn everything() -> Everything {
    let hidden = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 4]);
    let lengths = Tensor::from_slice(&[3i64, 1]);
    Everything {
        text: "späte Grüße".to_owned(),
        numbers: vec![-1, 0, i64::MAX],
        clients: [(ClientId(3), vec!["a".to_owned(), String::new()])].into(),
        turn: DecodeTurn { decoding: 1, position: 2, parents: vec![0, 0, 1] },
        hidden: HiddenStates::new(&hidden).with_lengths(Some(&lengths)),
        submitted: SubmittedSlice { trained: slice(), start: slice() },
        refusal: Err(SplitError::NoSession { client: ClientId(3) }),
    }
}

#[test]
fn what_is_written_is_read_back_with_the_same_bits() {
    let frame = encode(&everything()).unwrap();
    let read: Everything = decode(&frame).unwrap();
    assert_eq!(read.submitted.trained.digest(), slice().digest());
    assert_eq!(read.hidden.tensor(), everything().hidden.tensor());
    assert_eq!(read.hidden.lengths(), everything().hidden.lengths());
    assert_eq!((read.text, read.numbers, read.turn), {
        let Everything { text, numbers, turn, .. } = everything();
        (text, numbers, turn)
    });
    let refusal = read.refusal.unwrap_err();
    assert_eq!(refusal.to_string(), "no session of client-3 is open");
    assert!(refusal.is_retryable(), "what callers decide by crosses with the words");
}

#[test]
fn not_a_number_crosses_as_it_is() {
    let nan = HiddenStates::new(&Tensor::from_slice(&[f32::NAN, f32::INFINITY]).view([1, 1, 2]));
    let read: HiddenStates = decode(&encode(&nan).unwrap()).unwrap();
    let values = Vec::<f32>::try_from(read.tensor().view([-1])).unwrap();
    assert!(values[0].is_nan() && values[1].is_infinite());
}

#[test]
fn damage_is_told_from_another_message_and_from_no_message() {
    let frame = encode(&everything()).unwrap();
    let refused = |bytes: &[u8]| decode::<Everything>(bytes).unwrap_err();
    for at in [8, frame.len() / 2, frame.len() - 1] {
        let mut damaged = frame.clone();
        damaged[at] ^= 1;
        assert!(matches!(refused(&damaged), WireError::Checksum { .. }), "byte {at}");
    }
    let mut other_version = frame.clone();
    other_version[3] += 1;
    assert!(matches!(refused(&other_version), WireError::NoFrame { .. }));
    assert!(matches!(refused(b""), WireError::NoFrame { got: 0, .. }));
    assert!(matches!(refused(&encode(&7u64).unwrap()), WireError::Decode(_)));
    let trailing = encode(&(7u64, 8u64)).unwrap();
    assert!(matches!(decode::<u64>(&trailing), Err(WireError::Trailing(8))));
}

#[test]
fn names_out_of_order_or_twice_are_no_slice() {
    let tensor = || Tensor::from_slice(&[1f32]);
    for names in [["b", "a"], ["a", "a"]] {
        let tensors = names.map(|name| NamedTensor::new(name, tensor())).to_vec_of();
        let error = decode::<Slice>(&encode(&tensors).unwrap()).unwrap_err();
        assert!(error.to_string().contains("unique names in order"), "{error}");
    }
}

/// Arrays of what cannot be cloned.
trait ToVecOf<T> {
    fn to_vec_of(self) -> Vec<T>;
}

impl<T, const N: usize> ToVecOf<T> for [T; N] {
    fn to_vec_of(self) -> Vec<T> {
        self.into_iter().collect()
    }
}

/// A frame with its checksum put right, so that what is in it is looked at.
fn seal(body: &[u8]) -> Vec<u8> {
    let mut frame = encode(&()).expect("nothing can be written");
    frame.truncate(4);
    frame.extend(crc32fast::hash(body).to_le_bytes());
    frame.extend(body);
    frame
}

/// A legal body with something done to it: bits, lengths, pieces.
fn mutate(body: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut body = body.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..body.len());
        match rng.random_range(0..5) {
            0 => body[at] ^= 1 << rng.random_range(0..8),
            1 => {
                // Lengths and dimensions are 8 bytes: the likeliest to be a bomb.
                let values = [0, 1, u64::MAX, 1 << 31, 1 << 40, i64::MIN as u64, rng.random()];
                let value = values.choose(rng).copied().unwrap_or_default().to_le_bytes();
                let end = body.len().min(at + 8);
                body[at..end].copy_from_slice(&value[..end - at]);
            }
            2 => body.truncate(at.max(1)),
            3 => body.extend((0..rng.random_range(1..64)).map(|_| rng.random::<u8>())),
            _ => {
                let from = rng.random_range(0..body.len());
                let length = rng.random_range(0..64).min(body.len() - at.max(from));
                body.copy_within(from..from + length, at);
            }
        }
    }
    body
}

#[test]
fn hostile_bytes_are_refused_without_a_panic_and_without_memory() {
    let inputs: u64 =
        std::env::var("FELLREC_FUZZ").map_or(1_000_000, |n| n.parse().expect("a number"));
    let whole = encode(&everything()).unwrap();
    let mut rng = seed::rng(1, "fuzz", &[]);
    let (mut past_the_header, mut read) = (0u64, 0u64);
    for _ in 0..inputs {
        let frame = match rng.random_range(0..10) {
            0 => (0..rng.random_range(0..200)).map(|_| rng.random()).collect(),
            1 => mutate(&whole, &mut rng),
            _ => seal(&mutate(&whole[8..], &mut rng)),
        };
        LARGEST.set(0);
        let outcome = decode::<Everything>(&frame);
        let (largest, allowed) = (LARGEST.get(), PER_BYTE * frame.len() + AT_LEAST);
        assert!(largest <= allowed, "{largest} bytes at once for {} of input", frame.len());
        let no_header =
            matches!(outcome, Err(WireError::NoFrame { .. } | WireError::Checksum { .. }));
        past_the_header += u64::from(!no_header);
        read += u64::from(outcome.is_ok());
    }
    println!("{inputs} inputs, {past_the_header} past the header, {read} read as messages");
    assert!(past_the_header * 10 > inputs * 3, "at least 30 % of the inputs reach the message");
}
