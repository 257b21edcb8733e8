use super::super::{Metrics, RankShares, WarningKind};
use super::*;

/// Two records of TensorBoard 2.21.0's `RecordWriter`: `Event(wall_time=1700000000.25, file_version="brain.Event:2")` and
/// `Event(wall_time=1700000001.5, step=300)` with the summary value `reward`, 0.625.
const GOLDEN: &str = "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9\
    1d00000000000000602fdf230900006040fc54d94110ac022a0f0a0d0a06726577617264150000203fbb054bcb";

fn golden() -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&GOLDEN[at..at + 2], 16).unwrap();
    (0..GOLDEN.len()).step_by(2).map(byte).collect()
}

/// CRC-32C bit by bit, independent of the writer's table.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// TFRecord's masked checksum.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A field of a message: its field number, and its value or bytes.
#[derive(Debug, PartialEq)]
enum Field<'a> {
    Varint(u64, u64),
    Fixed(u64, &'a [u8]),
    Bytes(u64, &'a [u8]),
}

/// Parses the fields of a message.
fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let (field, kind) = (key >> 3, key & 7);
        if kind == 0 {
            fields.push(Field::Varint(field, varint(&mut bytes)));
            continue;
        }
        let length = match kind {
            1 => 8,
            5 => 4,
            2 => varint(&mut bytes) as usize,
            _ => panic!("a field of the kind {kind}"),
        };
        let (value, rest) = bytes.split_at(length);
        bytes = rest;
        fields.push(if kind == 2 {
            Field::Bytes(field, value)
        } else {
            Field::Fixed(field, value)
        });
    }
    fields
}

fn bytes_of<'a>(message: &'a [u8], number: u64) -> Vec<&'a [u8]> {
    let of = |field: Field<'a>| match field {
        Field::Bytes(n, bytes) if n == number => Some(bytes),
        _ => None,
    };
    fields(message).into_iter().filter_map(of).collect()
}

/// The records of a file, with verified checksums.
fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let mut rest = bytes;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(number(&rest[8..12]), masked(crc32c(&rest[..8])));
        let data = &rest[12..12 + length];
        assert_eq!(number(&rest[12 + length..16 + length]), masked(crc32c(data)));
        records.push(data.to_vec());
        rest = &rest[16 + length..];
    }
    records
}

/// The step, tag and value of every scalar.
fn scalars(path: &Path) -> Vec<(u64, String, f32)> {
    let mut scalars = Vec::new();
    for record in records(&std::fs::read(path).unwrap()).iter().skip(1) {
        let step = fields(record).into_iter().find_map(|field| match field {
            Field::Varint(2, step) => Some(step),
            _ => None,
        });
        for value in bytes_of(bytes_of(record, 5)[0], 1) {
            let tag = String::from_utf8(bytes_of(value, 1)[0].to_vec()).unwrap();
            let number = fields(value).into_iter().find_map(|field| match field {
                Field::Fixed(2, bytes) => Some(f32::from_le_bytes(bytes.try_into().unwrap())),
                _ => None,
            });
            scalars.extend(number.map(|number| (step.unwrap(), tag, number)));
        }
    }
    scalars
}

fn step(step: u64, reward: f64) -> Event {
    let metrics: Metrics = [("reward".to_owned(), reward)].into_iter().collect();
    Event::Step { step, epoch: 0.5, time_s: 1.5, ranks: RankShares::default(), metrics }
}

fn expected(step: u64, reward: f32) -> [(u64, String, f32); 2] {
    [(step, "epoch".into(), 0.5), (step, "reward".into(), reward)]
}

#[test]
fn the_reader_verifies_the_checksums_of_tensorboards_own_records() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let records = records(&golden());
    assert_eq!(records.len(), 2);
    assert_eq!(bytes_of(&records[0], 3), [b"brain.Event:2"]);
    let (step, reward) = (Field::Varint(2, 300), 0.625f32.to_le_bytes());
    assert_eq!(fields(&records[1])[1], step);
    let value = bytes_of(bytes_of(&records[1], 5)[0], 1)[0];
    assert_eq!(fields(value), [Field::Bytes(1, b"reward"), Field::Fixed(2, &reward)]);
}

#[test]
fn a_file_has_the_bytes_that_tensorboard_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = TensorBoard::open_at(dir.path(), 0, 1_700_000_000.25).unwrap();
    let metrics: Metrics = [("reward".to_owned(), 0.625)].into_iter().collect();
    // An evaluation has no scalar `epoch`.
    let event = Event::Eval { step: 300, epoch: 0.5, time_s: 1_700_000_001.5, metrics };
    sink.event(&event).unwrap();
    assert_eq!(std::fs::read(sink.file.path()).unwrap(), golden());
}

#[test]
fn metrics_are_read_back_by_step_and_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = TensorBoard::open(dir.path(), 0).unwrap();
    sink.event(&step(1, 0.25)).unwrap();
    sink.event(&step(300, -2.0)).unwrap();
    let first = &records(&std::fs::read(sink.file.path()).unwrap())[0];
    assert_eq!(bytes_of(first, 3), [b"brain.Event:2"]);
    assert_eq!(scalars(sink.file.path()), [expected(1, 0.25), expected(300, -2.0)].concat());
    assert_eq!(sink.length(), std::fs::metadata(sink.file.path()).unwrap().len());
}

#[test]
fn a_warning_is_a_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = TensorBoard::open(dir.path(), 0).unwrap();
    let message = "all rewards are 0".to_owned();
    sink.event(&Event::Warning { step: 7, concern: WarningKind::NoReward, message }).unwrap();
    let records = records(&std::fs::read(sink.file.path()).unwrap());
    let value = bytes_of(bytes_of(&records[1], 5)[0], 1)[0];
    assert_eq!(bytes_of(value, 1), [b"warnings"]);
    let plugin = bytes_of(bytes_of(value, 9)[0], 1)[0];
    assert_eq!(bytes_of(plugin, 1), [b"text"]);
    assert_eq!(bytes_of(bytes_of(value, 8)[0], 8), [b"all rewards are 0"]);
}

#[test]
fn events_after_the_checkpoint_show_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = TensorBoard::open(dir.path(), 0).unwrap();
    sink.event(&step(1, 0.25)).unwrap();
    let at_checkpoint = sink.length();
    sink.event(&step(2, 0.5)).unwrap();
    let path = sink.file.path().to_owned();
    // Killed in the middle of a record.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend([1, 2, 3]);
    std::fs::write(&path, bytes).unwrap();
    let mut resumed = TensorBoard::open(dir.path(), at_checkpoint).unwrap();
    resumed.event(&step(2, 0.5)).unwrap();
    assert_eq!(scalars(&path), [expected(1, 0.25), expected(2, 0.5)].concat());
}
