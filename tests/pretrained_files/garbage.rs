//! No bytes make the reader panic.

use std::fs;

use proptest::prelude::*;
use tch::{Device, Kind};

use crate::support::*;

/// Opens and, as far as that goes, reads everything.
fn exercise(folder: &Folder) -> bool {
    let Ok(checkpoint) = folder.open() else { return false };
    let fits = checkpoint.check(&llama_specs()).is_ok();
    for spec in llama_specs() {
        let read = checkpoint.tensor(&spec, Kind::Float, Device::Cpu);
        assert!(!fits || read.is_ok(), "what was checked can be read");
    }
    checkpoint.digest().unwrap();
    fits
}

proptest! {
    #[test]
    fn random_bytes_never_panic(
        header in proptest::collection::vec(any::<u8>(), 0..200),
        data in proptest::collection::vec(any::<u8>(), 0..50),
        honest in any::<bool>(),
    ) {
        let folder = Folder::new(&llama_config());
        let file = folder.file("model.safetensors");
        let length = if honest { (header.len() as u64).to_le_bytes() } else { [7; 8] };
        fs::write(&file, [&length[..], &header, &data].concat()).unwrap();
        prop_assert!(!exercise(&folder));
    }

    #[test]
    fn every_truncation_is_an_error(cut in any::<prop::sample::Index>()) {
        let folder = Folder::llama();
        let file = folder.file("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..cut.index(bytes.len())]).unwrap();
        let complaint = folder.complaint();
        prop_assert!(complaint.contains("model.safetensors"), "{}", complaint);
    }

    #[test]
    fn changed_bytes_of_the_header_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let folder = Folder::llama();
        let file = folder.file("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for (place, byte) in changes {
            bytes[place.index(header)] = byte;
        }
        fs::write(&file, bytes).unwrap();
        exercise(&folder);
    }

    #[test]
    fn changed_digits_of_the_config_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..12usize), 1..6),
    ) {
        let folder = Folder::llama();
        let file = folder.file("config.json");
        let mut text = fs::read(&file).unwrap();
        for (place, digit) in changes {
            let digits: Vec<usize> = (0..text.len()).filter(|i| text[*i].is_ascii_digit()).collect();
            text[digits[place.index(digits.len())]] = b"0123456789-e"[digit];
            if !text.iter().any(u8::is_ascii_digit) { break }
        }
        fs::write(&file, text).unwrap();
        exercise(&folder);
    }
}
