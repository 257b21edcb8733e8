//! Numbers that are serialized with four decimals.

use serde::{Serialize as _, Serializer};

pub(super) fn rounded<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1e4).round() / 1e4)
}

pub(super) fn rounded_if_known<S: Serializer>(
    value: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.map(|value| (value * 1e4).round() / 1e4).serialize(serializer)
}
