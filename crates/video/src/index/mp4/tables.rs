//! The sample tables of a track: offsets, sizes and timestamps.

use super::super::sample::{MAX_SAMPLES, Sample};
use super::boxes::{Mp4Box, only, table, u32_at};

/// The samples of a track in decoding order, and their decoding timestamps; `None` if the tables are
/// inconsistent or a sample lies outside the file of `length` bytes.
pub(super) fn samples(tables: &[Mp4Box<'_>], length: u64) -> Option<(Vec<Sample>, Vec<u64>)> {
    let sizes = sizes(only(tables, b"stsz")?)?;
    let count = sizes.len();
    let offsets = offsets(tables, &sizes, length)?;
    let durations = expanded(&table::<2>(only(tables, b"stts")?)?, count)?;
    let composition_offsets = match tables.iter().any(|entry| entry.kind == *b"ctts") {
        true => expanded(&table::<2>(only(tables, b"ctts")?)?, count)?,
        false => vec![0; count],
    };
    let mut is_key = vec![true; count];
    if tables.iter().any(|entry| entry.kind == *b"stss") {
        is_key.fill(false);
        for [number] in table::<1>(only(tables, b"stss")?)? {
            *is_key.get_mut((number as usize).checked_sub(1)?)? = true;
        }
    }
    let mut now = 0;
    let mut dts = Vec::with_capacity(count);
    let mut samples = Vec::with_capacity(count);
    for position in 0..count {
        let (offset, size) = (offsets[position], sizes[position]);
        let pts = now as i64 + i64::from(composition_offsets[position] as i32);
        samples.push(Sample { offset, size, pts, is_key: is_key[position] });
        dts.push(now);
        now += u64::from(durations[position]);
    }
    samples.first().is_some_and(|first| first.is_key).then_some((samples, dts))
}

/// The sample duration, if it is the same for all but the last sample.
pub(super) fn constant_duration(tables: &[Mp4Box<'_>]) -> Option<u32> {
    match table::<2>(only(tables, b"stts")?)?.as_slice() {
        [[_, step]] | [[_, step], [1, _]] => Some(*step).filter(|step| *step > 0),
        _ => None,
    }
}

/// The samples' sizes in bytes; none is empty.
fn sizes(body: &[u8]) -> Option<Vec<u32>> {
    // Version and flags, a common size or 0, a count, and the sizes.
    let count = u32_at(body, 8)? as usize;
    if u32_at(body, 4)? != 0 || !(1..=MAX_SAMPLES).contains(&count) {
        return None;
    }
    let (sizes, _) = body.get(12..)?.as_chunks::<4>();
    let sizes: Vec<u32> =
        sizes.get(..count)?.iter().map(|size| u32::from_be_bytes(*size)).collect();
    sizes.iter().all(|size| *size > 0).then_some(sizes)
}

/// The offset of each sample, from the chunk offsets and the samples per chunk.
fn offsets(tables: &[Mp4Box<'_>], sizes: &[u32], length: u64) -> Option<Vec<u64>> {
    let chunks: Vec<u64> = match tables.iter().any(|entry| entry.kind == *b"co64") {
        true => {
            let wide = table::<2>(only(tables, b"co64")?)?;
            wide.iter().map(|[high, low]| u64::from(*high) << 32 | u64::from(*low)).collect()
        }
        false => table::<1>(only(tables, b"stco")?)?.iter().map(|[at]| u64::from(*at)).collect(),
    };
    let runs = table::<3>(only(tables, b"stsc")?)?;
    let mut offsets = Vec::with_capacity(sizes.len());
    for (run, [first, samples, description]) in runs.iter().enumerate() {
        let end = runs.get(run + 1).map_or(chunks.len(), |next| (next[0] as usize).wrapping_sub(1));
        if *description != 1 {
            return None;
        }
        for chunk in chunks.get((*first as usize).checked_sub(1)?..end)? {
            let mut at = *chunk;
            for _ in 0..*samples {
                let size = u64::from(*sizes.get(offsets.len())?);
                offsets.push(at);
                at = at.checked_add(size).filter(|end| *end <= length)?;
            }
        }
    }
    (offsets.len() == sizes.len()).then_some(offsets)
}

/// Decodes run lengths to one value for each of `count` samples.
fn expanded(runs: &[[u32; 2]], count: usize) -> Option<Vec<u32>> {
    let total = runs.iter().try_fold(0usize, |sum, [run, _]| sum.checked_add(*run as usize))?;
    if total != count {
        return None;
    }
    Some(runs.iter().flat_map(|[run, value]| std::iter::repeat_n(*value, *run as usize)).collect())
}

/// Run-length encodes values.
pub(super) fn runs(values: impl Iterator<Item = u32>) -> Vec<[u32; 2]> {
    let mut runs: Vec<[u32; 2]> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some([count, last]) if *last == value => *count += 1,
            _ => runs.push([1, value]),
        }
    }
    runs
}
