use std::path::Path;

use proptest::prelude::*;

use super::*;

/// A file with this header and `data` bytes of tensor data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![7; data]].concat()
}

fn entry(name: &str, shape: &str, offsets: &str) -> String {
    format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}")
}

fn two(second: &str) -> Vec<u8> {
    file(&format!("{{{},{second}}}", entry("a", "[2]", "[0,8]")), 16)
}

#[track_caller]
fn assert_rejected(bytes: &[u8], parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let Err(error) = WeightFile::open(&path) else { panic!("the file is accepted") };
    let message = error.to_string();
    for part in parts.iter().chain(&["m.safetensors` is truncated or corrupt"]) {
        assert!(message.contains(part), "{message}, expected {part}");
    }
}

#[test]
fn tensors_are_located_by_the_header() {
    let bytes = file(
        &format!("{{\"__metadata__\":{{\"format\":\"pt\"}},{}}}", entry("a", "[1,2]", "[0,8]")),
        8,
    );
    let (tensors, _) = read(&bytes).unwrap();
    assert_eq!(tensors.len(), 1);
    assert_eq!((tensors["a"].shape.as_slice(), tensors["a"].byte_len()), (&[1, 2][..], 8));
}

#[test]
fn a_header_longer_than_the_file_is_rejected_with_both_lengths() {
    for claimed in [9, 100_000_001, u64::MAX] {
        let bytes = [&claimed.to_le_bytes()[..], b"{}      "].concat();
        assert_rejected(&bytes, &[&format!("claims {claimed} bytes, but may have at most 8")]);
    }
    assert_rejected(b"1234567", &["it must have at least 8 bytes, not 7"]);
}

#[test]
fn a_tensor_outside_of_the_file_is_reported_with_its_offsets() {
    let overflowing = "[0,18446744073709551615]";
    for offsets in ["[8,24]", "[16,8]", "[17,17]", overflowing] {
        let bytes = two(&entry("b", "[2]", offsets));
        assert_rejected(&bytes, &["`b` has the offsets", "of the 16 bytes"]);
    }
}

#[test]
fn a_length_that_does_not_match_the_shape_is_reported_with_both() {
    assert_rejected(
        &two(&entry("b", "[3]", "[8,16]")),
        &["`b` takes 8 bytes, but F32 [3] needs 12"],
    );
    let huge = entry("b", "[4294967296,4294967296]", "[8,16]");
    assert_rejected(&two(&huge), &["`b` takes 8 bytes, but F32", "needs another number"]);
    let half = entry("b", "[2]", "[8,16]").replace("F32", "F4");
    assert_rejected(&two(&half), &["`b` takes 8 bytes, but F4 [2] needs 1"]);
}

#[test]
fn overlaps_and_gaps_are_reported() {
    assert_rejected(&two(&entry("b", "[2]", "[4,12]")), &["`b` must begin at 8", "not at 4"]);
    assert_rejected(&two(&entry("b", "[1]", "[12,16]")), &["`b` must begin at 8", "not at 12"]);
    assert_rejected(&two(&entry("b", "[1]", "[8,12]")), &["end at 12 of the 16 bytes"]);
}

#[test]
fn duplicate_names_are_rejected() {
    assert_rejected(&two(&entry("a", "[2]", "[8,16]")), &["duplicate tensor `a`"]);
}

#[test]
fn an_unknown_dtype_is_reported() {
    let unknown = entry("b", "[2]", "[8,16]").replace("F32", "Q4");
    assert_rejected(&two(&unknown), &["`b` has the unknown dtype `Q4`"]);
}

#[test]
fn an_invalid_header_is_rejected() {
    for header in ["", "[]", "{", "{\"a\":7}", "{\"a\":{\"dtype\":\"F32\"}}", "{} {}"] {
        assert_rejected(&file(header, 0), &["its header is invalid"]);
    }
    let negative = entry("b", "[-1]", "[8,16]");
    assert_rejected(&two(&negative), &["its header is invalid"]);
}

#[test]
fn empty_tensors_do_not_overlap() {
    let bytes = two(&format!("{},{}", entry("b", "[0,9]", "[8,8]"), entry("c", "[2]", "[8,16]")));
    assert_eq!(read(&bytes).unwrap().0["b"].byte_len(), 0);
}

proptest! {
    #[test]
    fn any_bytes_are_rejected_or_have_all_tensors_in_the_file(
        length in 0_u64..80,
        header in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let bytes = [&length.to_le_bytes()[..], &header].concat();
        if let Ok((tensors, _)) = read(&bytes) {
            prop_assert!(tensors.values().all(|tensor| tensor.range.end <= bytes.len()));
        }
    }

    #[test]
    fn a_corrupted_header_is_rejected_or_has_all_tensors_in_the_file(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), b' '..b'~'), 1..4),
    ) {
        let mut bytes = two(&entry("b", "[2]", "[8,16]"));
        let header = bytes.len() - 16;
        for (at, byte) in changes {
            bytes[8 + at.index(header - 8)] = byte;
        }
        if let Ok((tensors, _)) = read(&bytes) {
            let total: usize = tensors.values().map(TensorInfo::byte_len).sum();
            prop_assert_eq!(total, 16);
        }
    }
}

#[test]
fn a_missing_file_is_reported_by_name() {
    let message = WeightFile::open(Path::new("nowhere.safetensors")).err().unwrap().to_string();
    assert!(message.starts_with("cannot open `nowhere.safetensors`"), "{message}");
}
