//! The protobuf messages that TensorBoard's scalars and texts need.
//!
//! Field numbers are those of TensorFlow's `event.proto`, `summary.proto` and `tensor.proto`.

/// A message under construction.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// Protobuf wire types.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// TensorFlow's `DT_STRING`.
const DT_STRING: u64 = 7;

/// `DATA_CLASS_TENSOR`, the data class of texts.
const TENSOR_CLASS: u64 = 2;

impl Message {
    fn key(mut self, field: u64, kind: u64) -> Self {
        self.raw_varint(field << 3 | kind);
        self
    }

    /// Seven bits per byte, lowest first; the top bit marks continuation.
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(self, field: u64, value: u64) -> Self {
        let mut message = self.key(field, VARINT);
        message.raw_varint(value);
        message
    }

    fn double(self, field: u64, value: f64) -> Self {
        let mut message = self.key(field, FIXED_64);
        message.0.extend(value.to_le_bytes());
        message
    }

    fn float(self, field: u64, value: f32) -> Self {
        let mut message = self.key(field, FIXED_32);
        message.0.extend(value.to_le_bytes());
        message
    }

    fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        let mut message = self.key(field, BYTES);
        message.raw_varint(bytes.len() as u64);
        message.0.extend(bytes);
        message
    }

    fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }
}

/// The first event of a file.
pub(super) fn version(time_s: f64) -> Vec<u8> {
    Message::default().double(1, time_s).bytes(3, b"brain.Event:2").0
}

/// An event with the scalars of one step.
pub(super) fn scalars<'a>(
    time_s: f64,
    step: u64,
    values: impl Iterator<Item = (&'a str, f64)>,
) -> Vec<u8> {
    let summary = values.fold(Message::default(), |summary, (tag, value)| {
        let value = Message::default().bytes(1, tag.as_bytes()).float(2, value as f32);
        summary.message(1, &value)
    });
    event(time_s, step, &summary)
}

/// An event with a text.
pub(super) fn text(time_s: f64, step: u64, tag: &str, text: &str) -> Vec<u8> {
    let plugin = Message::default().bytes(1, b"text");
    let metadata = Message::default().message(1, &plugin).varint(4, TENSOR_CLASS);
    let one = Message::default().varint(1, 1);
    let shape = Message::default().message(2, &one);
    let tensor =
        Message::default().varint(1, DT_STRING).message(2, &shape).bytes(8, text.as_bytes());
    let value =
        Message::default().bytes(1, tag.as_bytes()).message(9, &metadata).message(8, &tensor);
    event(time_s, step, &Message::default().message(1, &value))
}

fn event(time_s: f64, step: u64, summary: &Message) -> Vec<u8> {
    Message::default().double(1, time_s).varint(2, step).message(5, summary).0
}
