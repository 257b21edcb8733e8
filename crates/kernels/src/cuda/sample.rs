//! Sampling from rows of logits on the device.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};

use candle_core::Tensor;

use super::{Dtype, Stream, create, launch, read, upload_values, write};
use crate::error::{Result, check};
use crate::sample::{
    CHUNK, LogitChange, LogitEdits, RowSampling, SampledIndex, SamplingMode, Truncation, scale_f32,
};

const OP: &str = "sample";

/// Maximum views and requests per launch: the grid's limit.
const MAX_ROWS: usize = 65535;

unsafe extern "C" {
    fn er_sample_copy(
        edited: *mut c_void,
        logits: *const c_void,
        sources: *const c_void,
        only: *const c_void,
        rows: c_int,
        vocabulary: c_int,
        stream: Stream,
    ) -> c_int;
    fn er_sample_edit(
        edited: *mut c_void,
        logits: *const c_void,
        sources: *const c_void,
        edits: *const c_void,
        changes: *const c_void,
        values: *const c_void,
        count: c_int,
        vocabulary: c_int,
        stream: Stream,
    ) -> c_int;
    fn er_sample_scan(
        maxima: *mut c_void,
        masses: *mut c_void,
        logits: *const c_void,
        edited: *const c_void,
        views: *const c_void,
        count: c_int,
        vocabulary: c_int,
        stream: Stream,
    ) -> c_int;
    fn er_sample_draw(
        sampled: *mut c_void,
        work: *mut c_void,
        logits: *const c_void,
        edited: *const c_void,
        maxima: *const c_void,
        masses: *const c_void,
        views: *const c_void,
        requests: *const c_void,
        truncations: *const c_void,
        uniforms: *const c_void,
        count: c_int,
        vocabulary: c_int,
        stream: Stream,
    ) -> c_int;
    fn er_sample_truncate(
        truncations: *mut c_void,
        sums: *mut c_void,
        work: *mut c_void,
        logits: *const c_void,
        edited: *const c_void,
        maxima: *const c_void,
        masses: *const c_void,
        views: *const c_void,
        requests: *const c_void,
        count: c_int,
        vocabulary: c_int,
        by_count: c_int,
        by_mass: c_int,
        stream: Stream,
    ) -> c_int;
}

/// Words of a request's truncation, and of the sums of its search (`truncate.cu`).
const TRUNCATION_WORDS: usize = 8;
const SUM_WORDS: usize = 2 * 256;

/// Which truncations any request has.
#[derive(Clone, Copy, Default)]
struct Truncations {
    min_p: bool,
    top_k: bool,
    top_p: bool,
}

impl Truncations {
    fn any(self) -> bool {
        self.min_p || self.top_k || self.top_p
    }
}

/// Sampling requests, packed for the kernels.
#[derive(Default)]
struct SamplingInputs {
    /// (row, whether it is edited, scale) of each distinct raw row and scale, and of each edited row.
    views: Vec<u32>,
    requests: Vec<u32>,
    uniforms: Vec<u32>,
    /// Source row of each edited row.
    sources: Vec<u32>,
    /// Whether only allowed ids remain, for each edited row.
    only: Vec<u32>,
    /// (edited row, id, first change, end of changes).
    edits: Vec<u32>,
    changes: Vec<u32>,
    values: Vec<f32>,
    /// Views of raw rows, by row and scale.
    raw: BTreeMap<(usize, u32), u32>,
    truncations: Truncations,
}

fn f64_words(x: f64) -> [u32; 2] {
    let bits = x.to_bits();
    [bits as u32, (bits >> 32) as u32]
}

impl SamplingInputs {
    fn view(&mut self, row: usize, edited: bool, scale: f32) -> u32 {
        let index = self.views.len() / 3;
        self.views.extend([row as u32, u32::from(edited), scale.to_bits()]);
        index as u32
    }

    fn raw(&mut self, row: usize, scale: f32) -> u32 {
        if let Some(view) = self.raw.get(&(row, scale.to_bits())) {
            return *view;
        }
        let view = self.view(row, false, scale);
        self.raw.insert((row, scale.to_bits()), view);
        view
    }

    fn add(&mut self, request: &RowSampling) {
        let scale = scale_f32(request.scale);
        let raw = self.raw(request.row, scale);
        let view = match request.edits.is_empty() {
            true => raw,
            false => {
                let edited = self.sources.len();
                self.edit(request.row, edited, &request.edits);
                self.view(edited, true, scale)
            }
        };
        let first = self.uniforms.len() / 2;
        let (uniforms, to, greedy) = match &request.mode {
            SamplingMode::Greedy => (&[0.0][..], Truncation::default(), true),
            SamplingMode::Random(uniforms, to) => (&uniforms[..], *to, false),
        };
        self.uniforms.extend(uniforms.iter().flat_map(|uniform| f64_words(*uniform)));
        let min_p = match to.min_p > 0.0 {
            true => to.min_p.ln() / request.scale,
            false => f64::NEG_INFINITY,
        };
        let top_k = u32::try_from(to.top_k).unwrap_or(u32::MAX);
        self.truncations.min_p |= to.min_p > 0.0;
        self.truncations.top_k |= top_k > 0;
        self.truncations.top_p |= to.top_p < 1.0;
        let draws = [first as u32, uniforms.len() as u32, u32::from(greedy), top_k];
        self.requests.extend([raw, view].into_iter().chain(draws));
        self.requests.extend(f64_words(to.top_p).into_iter().chain(f64_words(min_p)));
    }

    fn edit(&mut self, row: usize, edited: usize, edits: &LogitEdits) {
        const ALLOW: u32 = 0;
        self.sources.push(row as u32);
        self.only.push(u32::from(edits.allowed.is_some()));
        let mut of_ids: BTreeMap<u32, Vec<(u32, f32)>> = BTreeMap::new();
        for id in edits.allowed.iter().flatten() {
            of_ids.insert(*id, vec![(ALLOW, 0.0)]);
        }
        for (id, change) in &edits.changes {
            of_ids.entry(*id).or_default().push(match change {
                LogitChange::Ban => (1, 0.0),
                LogitChange::Bias(more) => (2, *more),
                LogitChange::RepetitionPenalty(by) => (3, *by),
            });
        }
        for (id, changes) in of_ids {
            let first = self.changes.len();
            self.changes.extend(changes.iter().map(|change| change.0));
            self.values.extend(changes.iter().map(|change| change.1));
            self.edits.extend([edited as u32, id, first as u32, self.changes.len() as u32]);
        }
    }
}

pub(crate) fn draw(
    logits: &Tensor,
    requests: &[RowSampling],
    (_, vocabulary): (usize, usize),
) -> Result<Vec<Vec<SampledIndex>>> {
    let draws: usize = requests.iter().map(RowSampling::draws).sum();
    if draws == 0 || vocabulary == 0 {
        let none = SampledIndex { index: None, log_probability: f64::NAN };
        return Ok(requests.iter().map(|request| vec![none; request.draws()]).collect());
    }
    let mut packed = SamplingInputs::default();
    requests.iter().for_each(|request| packed.add(request));
    let (views, edits) = (packed.views.len() / 3, packed.sources.len());
    let rows = views.max(requests.len());
    check(rows <= MAX_ROWS, OP, || format!("{rows} rows at once, at most {MAX_ROWS}"))?;
    let (device, stream, n) = (logits.device(), Stream::of(logits)?, vocabulary as c_int);
    let chunks = vocabulary.div_ceil(CHUNK);
    let logits = read(logits, OP)?.expect_dtype(Dtype::F32)?;
    let f32s = |count| create(device, count, Dtype::F32, OP, |_| Ok(()));
    let edited = f32s(edits.max(1) * vocabulary)?;
    if edits > 0 {
        edit(&packed, logits.ptr, &edited, (edits, vocabulary), stream)?;
    }
    let (maxima, masses) = (f32s(views * chunks)?, f32s(views * chunks)?);
    let work = f32s(requests.len() * 2 * chunks)?;
    let [view_list, request_list, uniforms] =
        [&packed.views, &packed.requests, &packed.uniforms].map(|list| upload_values(list, device));
    let (view_list, request_list, uniforms) = (view_list?, request_list?, uniforms?);
    let (view_list, request_list) = (read(&view_list, OP)?, read(&request_list, OP)?);
    let uniforms = read(&uniforms, OP)?;
    let edited = read(&edited, OP)?;
    write([(&maxima, Dtype::F32), (&masses, Dtype::F32)], OP, |[maxima, masses]| {
        let count = views as c_int;
        launch!(
            OP,
            er_sample_scan(maxima, masses, logits.ptr, edited.ptr, view_list.ptr, count, n, stream)
        )
    })?;
    let (maxima, masses) = (read(&maxima, OP)?, read(&masses, OP)?);
    let Truncations { top_k, top_p, .. } = packed.truncations;
    let count = requests.len() as c_int;
    let words = |words: usize| create(device, words, Dtype::U32, OP, |_| Ok(()));
    let truncations = match packed.truncations.any() {
        false => None,
        true => {
            let truncations = words(requests.len() * TRUNCATION_WORDS)?;
            let sums = words(requests.len() * SUM_WORDS)?;
            let to = [(&truncations, Dtype::U32), (&sums, Dtype::U32), (&work, Dtype::F32)];
            write(to, OP, |[truncations, sums, work]| {
                launch!(
                    OP,
                    er_sample_truncate(
                        truncations,
                        sums,
                        work,
                        logits.ptr,
                        edited.ptr,
                        maxima.ptr,
                        masses.ptr,
                        view_list.ptr,
                        request_list.ptr,
                        count,
                        n,
                        c_int::from(top_k),
                        c_int::from(top_p),
                        stream
                    )
                )
            })?;
            Some(truncations)
        }
    };
    let truncations = truncations.as_ref().map(|words| read(words, OP)).transpose()?;
    let truncations = truncations.as_ref().map_or(std::ptr::null(), |words| words.ptr);
    let sampled = create(device, draws * 5, Dtype::U32, OP, |sampled| {
        write([(&work, Dtype::F32)], OP, |[work]| {
            launch!(
                OP,
                er_sample_draw(
                    sampled,
                    work,
                    logits.ptr,
                    edited.ptr,
                    maxima.ptr,
                    masses.ptr,
                    view_list.ptr,
                    request_list.ptr,
                    truncations,
                    uniforms.ptr,
                    count,
                    n,
                    stream
                )
            )
        })
    })?;
    let sampled: Vec<u32> = sampled.to_vec1()?;
    let mut sampled = sampled.chunks_exact(5);
    let of_request = |request: &RowSampling| {
        let words = sampled.by_ref().take(request.draws());
        words.map(|words| read_draw(words, request.scale)).collect()
    };
    Ok(requests.iter().map(of_request).collect())
}

/// Decodes (index, logit, largest logit, sum of weights), as in `Scan::log_probability`.
fn read_draw(words: &[u32], scale: f64) -> SampledIndex {
    let (logit, top) = (f32::from_bits(words[1]), f32::from_bits(words[2]));
    let total = f64::from_bits(u64::from(words[3]) | u64::from(words[4]) << 32);
    let index = (words[0] != u32::MAX).then_some(words[0] as usize);
    let log_probability = f64::from(logit - top) * scale - total.ln();
    SampledIndex {
        index,
        log_probability: if index.is_some() { log_probability } else { f64::NAN },
    }
}

fn edit(
    packed: &SamplingInputs,
    logits: *const c_void,
    edited: &Tensor,
    (rows, vocabulary): (usize, usize),
    stream: Stream,
) -> Result<()> {
    let device = edited.device();
    let [sources, only, edits, changes] =
        [&packed.sources, &packed.only, &packed.edits, &packed.changes]
            .map(|list| upload_values(list, device));
    let (sources, only, edits, changes) = (sources?, only?, edits?, changes?);
    let values = upload_values(&packed.values, device)?;
    let (sources, only, edits) = (read(&sources, OP)?, read(&only, OP)?, read(&edits, OP)?);
    let (changes, values) = (read(&changes, OP)?, read(&values, OP)?);
    let (count, rows, n) = (packed.edits.len() / 4, rows as c_int, vocabulary as c_int);
    write([(edited, Dtype::F32)], OP, |[edited]| {
        launch!(OP, er_sample_copy(edited, logits, sources.ptr, only.ptr, rows, n, stream))?;
        let (edits, count) = (edits.ptr, count as c_int);
        launch!(
            OP,
            er_sample_edit(
                edited,
                logits,
                sources.ptr,
                edits,
                changes.ptr,
                values.ptr,
                count,
                n,
                stream
            )
        )
    })
}
