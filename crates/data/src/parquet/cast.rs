//! One cast of all columns to the types that the rest of the program reads.
//!
//! The parquet schema says how values are stored and, in annotations, what they mean. Writers add an Arrow schema with
//! types such as dictionaries, views and lists of a fixed size, which change neither; it is not read. [`Leaf::take`]
//! takes the annotations that polars is not built for off the schema, so that polars decodes numbers of 32 or 64 bits,
//! texts and binary values. [`cast`] gives these their meaning: numbers, or texts for dates and times.

use chrono::{DateTime, NaiveDate, NaiveTime};
use polars::prelude::{DataType, IntoSeries as _, NamedFrom as _, PolarsResult, Series as Values};
use polars_parquet_format::{ConvertedType, LogicalType, SchemaElement, TimeUnit, Type};

/// The meaning of the values of a leaf of the parquet schema, where polars does not know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    /// What polars reads.
    Plain,
    /// All are null.
    Null,
    /// Two bytes: a float16.
    Float16,
    /// Days since 1970.
    Date,
    /// Units since midnight, with the number of units in a second.
    Time(i64),
    /// Units since 1970.
    Timestamp {
        /// The number of units in a second.
        per_second: i64,
        /// Whether they are in UTC; otherwise in an unknown time zone.
        utc: bool,
    },
    /// Twelve bytes: nanoseconds of the day and the Julian day.
    Int96,
    /// An integer, or one of big-endian bytes, in units of 10⁻ⁿ.
    Decimal(usize),
    /// Sixteen bytes.
    Uuid,
}

/// Digits after the point of the decimals that are read: those of 256 bits have at most 76.
const MAX_SCALE: i32 = 76;

impl Leaf {
    /// Takes the meaning of a leaf off the schema, so that polars reads its values as they are stored.
    pub(super) fn take(element: &mut SchemaElement) -> Self {
        use {ConvertedType as C, LogicalType as L, Type as T};
        let Some(stored) = element.type_ else { return Self::Plain };
        let (logical, converted) = (element.logical_type.take(), element.converted_type.take());
        let length = element.type_length.unwrap_or(0);
        let per_second = |unit: &TimeUnit| match unit {
            TimeUnit::MILLIS(_) => 1_000,
            TimeUnit::MICROS(_) => 1_000_000,
            TimeUnit::NANOS(_) => 1_000_000_000,
        };
        if stored == T::INT96 {
            (element.type_, element.type_length) = (Some(T::FIXED_LEN_BYTE_ARRAY), Some(12));
            return Self::Int96;
        }
        let scale = match (stored, &logical, converted) {
            (T::BOOLEAN | T::FLOAT | T::DOUBLE, ..) => None,
            (_, Some(L::DECIMAL(decimal)), _) => Some(decimal.scale),
            (_, None, Some(C::DECIMAL)) => Some(element.scale.unwrap_or(0)),
            _ => None,
        };
        if let Some(scale) = scale {
            let is_read = (0..=MAX_SCALE).contains(&scale);
            return if is_read { Self::Decimal(scale as usize) } else { Self::Plain };
        }
        match (stored, logical, converted) {
            (_, Some(L::UNKNOWN(_)), _) => Self::Null,
            (T::BYTE_ARRAY, Some(L::STRING(_) | L::JSON(_) | L::ENUM(_)), _)
            | (T::BYTE_ARRAY, None, Some(C::UTF8 | C::JSON | C::ENUM)) => {
                element.converted_type = Some(C::UTF8);
                Self::Plain
            }
            (T::INT32, Some(L::DATE(_)), _) | (T::INT32, None, Some(C::DATE)) => Self::Date,
            (T::INT32 | T::INT64, Some(L::TIME(time)), _) => Self::Time(per_second(&time.unit)),
            (T::INT32, None, Some(C::TIME_MILLIS)) => Self::Time(1_000),
            (T::INT64, None, Some(C::TIME_MICROS)) => Self::Time(1_000_000),
            (T::INT64, Some(L::TIMESTAMP(time)), _) => {
                let utc = time.is_adjusted_to_u_t_c;
                Self::Timestamp { per_second: per_second(&time.unit), utc }
            }
            (T::INT64, None, Some(C::TIMESTAMP_MILLIS)) => {
                Self::Timestamp { per_second: 1_000, utc: false }
            }
            (T::INT64, None, Some(C::TIMESTAMP_MICROS)) => {
                Self::Timestamp { per_second: 1_000_000, utc: false }
            }
            (T::FIXED_LEN_BYTE_ARRAY, Some(L::FLOAT16(_)), _) if length == 2 => Self::Float16,
            (T::FIXED_LEN_BYTE_ARRAY, Some(L::UUID(_)), _) if length == 16 => Self::Uuid,
            // Smaller integers are stored in 32 bits.
            (T::INT32, Some(L::INTEGER(kind)), _) if !kind.is_signed && kind.bit_width == 32 => {
                element.converted_type = Some(C::UINT_32);
                Self::Plain
            }
            (T::INT64, Some(L::INTEGER(kind)), _) if !kind.is_signed => {
                element.converted_type = Some(C::UINT_64);
                Self::Plain
            }
            (T::INT32, None, Some(C::UINT_32)) | (T::INT64, None, Some(C::UINT_64)) => {
                element.converted_type = converted;
                Self::Plain
            }
            _ => Self::Plain,
        }
    }
}

/// The values of a column whose leaves have these meanings, in the order of the schema.
pub(super) fn cast(values: &Values, leaves: &[Leaf]) -> PolarsResult<Values> {
    match values.dtype() {
        DataType::List(_) => {
            Ok(values.list()?.apply_to_inner(&|inner| cast(&inner, leaves))?.into_series())
        }
        DataType::Struct(_) => {
            let mut rest = leaves;
            let cast_field = |field: &Values| {
                let (own, later) = rest.split_at(leaf_count(field.dtype()).min(rest.len()));
                rest = later;
                cast(field, own)
            };
            Ok(values.struct_()?.try_apply_fields(cast_field)?.into_series())
        }
        _ => cast_leaf(values, leaves.first().copied().unwrap_or(Leaf::Plain)),
    }
}

fn leaf_count(dtype: &DataType) -> usize {
    match dtype {
        DataType::List(inner) => leaf_count(inner),
        DataType::Struct(fields) => fields.iter().map(|field| leaf_count(field.dtype())).sum(),
        _ => 1,
    }
}

fn cast_leaf(values: &Values, leaf: Leaf) -> PolarsResult<Values> {
    let name = values.name().clone();
    match leaf {
        Leaf::Plain => Ok(values.clone()),
        Leaf::Null => Ok(Values::full_null(name, values.len(), &DataType::Null)),
        Leaf::Float16 => {
            let widen = |bytes: &[u8]| {
                <[u8; 2]>::try_from(bytes).ok().map(half::f16::from_le_bytes).map(f64::from)
            };
            Ok(Values::new(name, of_bytes(values, widen)?))
        }
        Leaf::Date => Ok(Values::new(name, of_integers(values, date)?)),
        Leaf::Time(per_second) => {
            Ok(Values::new(name, of_integers(values, |time| time_of_day(time, per_second))?))
        }
        Leaf::Timestamp { per_second, utc } => {
            let zone = if utc { "+00:00" } else { "" };
            let text = |time| Some(format!("{}{zone}", date_and_time(time, per_second)?));
            Ok(Values::new(name, of_integers(values, text)?))
        }
        Leaf::Int96 => Ok(Values::new(name, of_bytes(values, int96)?)),
        Leaf::Decimal(scale) => decimals(values, scale),
        Leaf::Uuid => Ok(Values::new(name, of_bytes(values, uuid)?)),
    }
}

fn of_bytes<T>(values: &Values, read: impl Fn(&[u8]) -> Option<T>) -> PolarsResult<Vec<Option<T>>> {
    Ok(values.binary()?.iter().map(|bytes| bytes.and_then(&read)).collect())
}

fn of_integers<T>(
    values: &Values,
    read: impl Fn(i64) -> Option<T>,
) -> PolarsResult<Vec<Option<T>>> {
    let integers = values.strict_cast(&DataType::Int64)?;
    Ok(integers.i64()?.iter().map(|value| value.and_then(&read)).collect())
}

/// Decimals as numbers: integers if there are no digits after the point.
fn decimals(values: &Values, scale: usize) -> PolarsResult<Values> {
    let name = values.name().clone();
    if *values.dtype() != DataType::Binary {
        return match scale {
            0 => values.strict_cast(&DataType::Int64),
            _ => Ok(Values::new(name, of_integers(values, |it| Some(decimal(it.into(), scale)))?)),
        };
    }
    let whole = |bytes: Option<&[u8]>| {
        bytes
            .map(|bytes| i64::try_from(big_endian(bytes)?).ok())
            .map_or(Some(None), |it| it.map(Some))
    };
    let of_all: Option<Vec<Option<i64>>> = match scale {
        0 => values.binary()?.iter().map(whole).collect(),
        _ => None,
    };
    match of_all {
        Some(integers) => Ok(Values::new(name, integers)),
        None => Ok(Values::new(name, of_bytes(values, |bytes| Some(big_decimal(bytes, scale)))?)),
    }
}

/// The number next to `value` · 10^-`scale`.
fn decimal(value: i128, scale: usize) -> f64 {
    format!("{value}e-{scale}").parse().unwrap_or(f64::NAN)
}

/// The same of an integer of bytes, about right beyond 128 bits.
fn big_decimal(bytes: &[u8], scale: usize) -> f64 {
    big_endian(bytes).map_or_else(
        || {
            let signed = |(at, byte): (usize, &u8)| match at {
                0 => f64::from(i8::from_be_bytes([*byte])),
                _ => f64::from(*byte),
            };
            let value = bytes.iter().enumerate().map(signed).fold(0.0, |sum, it| sum * 256.0 + it);
            value / 10_f64.powi(scale as i32)
        },
        |value| decimal(value, scale),
    )
}

/// A signed integer of bytes, if it fits into 128 bits.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first().is_some_and(|first| *first >= 0x80) { 0xff } else { 0 };
    let (head, tail) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut padded = [sign; 16];
    padded[16 - tail.len()..].copy_from_slice(tail);
    let value = i128::from_be_bytes(padded);
    let fits = head.iter().all(|byte| *byte == sign) && (value < 0) == (sign == 0xff);
    fits.then_some(value)
}

fn uuid(bytes: &[u8]) -> Option<String> {
    let value = u128::from_be_bytes(bytes.try_into().ok()?);
    let digits = format!("{value:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    Some(parts.join("-"))
}

/// A timestamp of Spark's and Hive's older files.
fn int96(bytes: &[u8]) -> Option<String> {
    const JULIAN_DAY_OF_1970: i64 = 2_440_588;
    const NANOSECONDS_PER_DAY: i64 = 86_400 * 1_000_000_000;
    let (nanoseconds, day) = bytes.split_at_checked(8)?;
    let nanoseconds = i64::from_le_bytes(nanoseconds.try_into().ok()?);
    let day = i64::from(i32::from_le_bytes(day.try_into().ok()?)) - JULIAN_DAY_OF_1970;
    date_and_time(day.checked_mul(NANOSECONDS_PER_DAY)?.checked_add(nanoseconds)?, 1_000_000_000)
}

/// A day since 1970; none beyond the calendar's years.
fn date(day: i64) -> Option<String> {
    Some(NaiveDate::from_epoch_days(i32::try_from(day).ok()?)?.to_string())
}

/// A time since 1970 as in ISO 8601; none beyond the calendar's years.
fn date_and_time(time: i64, per_second: i64) -> Option<String> {
    let (seconds, nanoseconds) = seconds(time, per_second)?;
    Some(format!("{:?}", DateTime::from_timestamp(seconds, nanoseconds)?.naive_utc()))
}

/// A time since midnight; none beyond a day.
fn time_of_day(time: i64, per_second: i64) -> Option<String> {
    let (seconds, nanoseconds) = seconds(time, per_second)?;
    let seconds = u32::try_from(seconds).ok()?;
    Some(NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanoseconds)?.to_string())
}

/// Whole seconds and nanoseconds.
fn seconds(time: i64, per_second: i64) -> Option<(i64, u32)> {
    let nanoseconds = time.rem_euclid(per_second) * (1_000_000_000 / per_second);
    Some((time.div_euclid(per_second), u32::try_from(nanoseconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_are_texts_of_iso_8601() {
        for (day, expected) in [
            (0, Some("1970-01-01")),
            (-1, Some("1969-12-31")),
            (11_016, Some("2000-02-29")),
            (20_455, Some("2026-01-02")),
            (i64::from(i32::MAX), None),
            (i64::MIN, None),
        ] {
            assert_eq!(date(day).as_deref(), expected);
        }
        for (time, per_second, expected) in [
            (0, 1_000, Some("1970-01-01T00:00:00")),
            (-1, 1_000, Some("1969-12-31T23:59:59.999")),
            (1_767_323_045_600_010, 1_000_000, Some("2026-01-02T03:04:05.600010")),
            (1_000_000_001, 1_000_000_000, Some("1970-01-01T00:00:01.000000001")),
            (i64::MAX, 1_000, None),
        ] {
            assert_eq!(date_and_time(time, per_second).as_deref(), expected);
        }
        for (time, expected) in [(11_045_600, Some("03:04:05.600")), (-1, None), (86_400_000, None)]
        {
            assert_eq!(time_of_day(time, 1_000).as_deref(), expected);
        }
        let julian = |nanoseconds: i64, day: i32| {
            int96(&[nanoseconds.to_le_bytes().as_slice(), &day.to_le_bytes()].concat())
        };
        assert_eq!(julian(0, 2_440_589).as_deref(), Some("1970-01-02T00:00:00"));
        assert_eq!((julian(i64::MAX, i32::MAX), int96(b"short")), (None, None));
    }

    #[test]
    fn decimals_are_the_nearest_numbers() {
        for (value, scale, expected) in
            [(-125, 2, -1.25), (1, 1, 0.1), (0, 3, 0.0), (7, 0, 7.0), (3, 76, 3e-76)]
        {
            assert_eq!(decimal(value, scale), expected);
        }
        for (bytes, expected) in [
            (vec![], Some(0)),
            (vec![0x80], Some(-128)),
            (vec![0, 0x80], Some(128)),
            (vec![0xff; 32], Some(-1)),
            ([vec![0; 16], vec![0xff; 16]].concat(), None),
            ([vec![1], vec![0; 16]].concat(), None),
        ] {
            assert_eq!(big_endian(&bytes), expected, "{bytes:?}");
        }
        let wide = [vec![1], vec![0; 16]].concat();
        assert_eq!(big_decimal(&wide, 0), 2_f64.powi(128));
        assert_eq!(big_decimal(&[vec![0xff], vec![0; 16]].concat(), 1), -(2_f64.powi(128)) / 10.0);
    }
}
