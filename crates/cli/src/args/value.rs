//! Parsers of option values that several commands have.

use std::time::Duration;

/// A count of 1 or more.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}

/// A width and a height, such as `224x224`.
pub(super) fn size(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('x').map(|(width, height)| (width.parse(), height.parse()));
    match parts {
        Some((Ok(width), Ok(height))) => Ok((width, height)),
        _ => Err("must be a width and a height, such as 224x224".to_owned()),
    }
}

/// A time in seconds, above 0.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be a number of seconds above 0".to_owned()),
    }
}

/// A price or a cost, of 0 or more.
pub(super) fn price(text: &str) -> Result<f64, String> {
    let price: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match price.is_finite() && price >= 0.0 {
        true => Ok(price),
        false => Err("must be a number of 0 or more".to_owned()),
    }
}
