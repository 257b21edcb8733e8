//! Draws from rows of logits on the device.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};

use candle_core::{Device, Tensor};

use super::{Dtype, Stream, create, launch, read, write};
use crate::error::{Error, Result};
use crate::sample::{CHUNK, Change, Choice, Draw, Edits, Pick, Truncation, narrowed};

const OP: &str = "sample";

/// Rows of a launch, at most: what a grid takes.
const MOST_VIEWS: usize = 65535;

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
        places: *const c_void,
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
        drawn: *mut c_void,
        work: *mut c_void,
        logits: *const c_void,
        edited: *const c_void,
        maxima: *const c_void,
        masses: *const c_void,
        views: *const c_void,
        choices: *const c_void,
        uniforms: *const c_void,
        count: c_int,
        vocabulary: c_int,
        stream: Stream,
    ) -> c_int;
}

/// The choices as the kernels take them.
#[derive(Default)]
struct Packed {
    /// Row, whether it is an edited one, scale: for each distinct row and scale, and for each edited row.
    views: Vec<u32>,
    choices: Vec<u32>,
    uniforms: Vec<u32>,
    /// Row of the logits, for each edited row.
    sources: Vec<u32>,
    /// Whether all but some logits are left out, for each edited row.
    only: Vec<u32>,
    /// Edited row, index, first change, end of its changes.
    places: Vec<u32>,
    changes: Vec<u32>,
    values: Vec<f32>,
    /// Views of rows as they are, by row and scale.
    raw: BTreeMap<(usize, u32), u32>,
}

fn words(x: f64) -> [u32; 2] {
    let bits = x.to_bits();
    [bits as u32, (bits >> 32) as u32]
}

impl Packed {
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

    fn add(&mut self, choice: &Choice) {
        let scale = narrowed(choice.scale);
        let raw = self.raw(choice.row, scale);
        let view = match choice.edits.is_empty() {
            true => raw,
            false => {
                let edited = self.sources.len();
                self.edit(choice.row, edited, &choice.edits);
                self.view(edited, true, scale)
            }
        };
        let first = self.uniforms.len() / 2;
        let (uniforms, to, greedy) = match &choice.pick {
            Pick::Largest => (&[0.0][..], Truncation::default(), true),
            Pick::At(uniforms, to) => (&uniforms[..], *to, false),
        };
        self.uniforms.extend(uniforms.iter().flat_map(|uniform| words(*uniform)));
        let min_p = match to.min_p > 0.0 {
            true => to.min_p.ln() / choice.scale,
            false => f64::NEG_INFINITY,
        };
        let top_k = u32::try_from(to.top_k).unwrap_or(u32::MAX);
        let draws = [first as u32, uniforms.len() as u32, u32::from(greedy), top_k];
        self.choices.extend([raw, view].into_iter().chain(draws));
        self.choices.extend(words(to.top_p).into_iter().chain(words(min_p)));
    }

    fn edit(&mut self, row: usize, edited: usize, edits: &Edits) {
        const ALLOW: u32 = 0;
        self.sources.push(row as u32);
        self.only.push(u32::from(edits.allowed.is_some()));
        let mut of_ids: BTreeMap<u32, Vec<(u32, f32)>> = BTreeMap::new();
        for id in edits.allowed.iter().flatten() {
            of_ids.insert(*id, vec![(ALLOW, 0.0)]);
        }
        for (id, change) in &edits.changes {
            of_ids.entry(*id).or_default().push(match change {
                Change::Bar => (1, 0.0),
                Change::Add(more) => (2, *more),
                Change::Penalise(by) => (3, *by),
            });
        }
        for (id, changes) in of_ids {
            let first = self.changes.len();
            self.changes.extend(changes.iter().map(|change| change.0));
            self.values.extend(changes.iter().map(|change| change.1));
            self.places.extend([edited as u32, id, first as u32, self.changes.len() as u32]);
        }
    }
}

pub(crate) fn draw(
    logits: &Tensor,
    choices: &[Choice],
    (_, vocabulary): (usize, usize),
) -> Result<Vec<Vec<Draw>>> {
    let draws: usize = choices.iter().map(Choice::draws).sum();
    if draws == 0 || vocabulary == 0 {
        let none = Draw { index: None, log_probability: f64::NAN };
        return Ok(choices.iter().map(|choice| vec![none; choice.draws()]).collect());
    }
    let mut packed = Packed::default();
    choices.iter().for_each(|choice| packed.add(choice));
    let (views, edits) = (packed.views.len() / 3, packed.sources.len());
    if views > MOST_VIEWS {
        return Err(Error::Shape {
            op: OP,
            what: format!("{views} rows at once, at most {MOST_VIEWS}"),
        });
    }
    let (device, stream, n) = (logits.device(), Stream::of(logits)?, vocabulary as c_int);
    let chunks = vocabulary.div_ceil(CHUNK);
    let logits = read(logits, OP)?.of(Dtype::F32)?;
    let f32s = |count| create(device, count, Dtype::F32, OP, |_| Ok(()));
    let edited = f32s(edits.max(1) * vocabulary)?;
    if edits > 0 {
        edit(&packed, logits.at, &edited, (edits, vocabulary), stream)?;
    }
    let (maxima, masses) = (f32s(views * chunks)?, f32s(views * chunks)?);
    let work = f32s(choices.len() * 2 * chunks)?;
    let [view_list, choice_list, uniforms] =
        [&packed.views, &packed.choices, &packed.uniforms].map(|list| uploaded(list, device));
    let (view_list, choice_list, uniforms) = (view_list?, choice_list?, uniforms?);
    let (view_list, choice_list) = (read(&view_list, OP)?, read(&choice_list, OP)?);
    let uniforms = read(&uniforms, OP)?;
    let edited = read(&edited, OP)?;
    write([(&maxima, Dtype::F32), (&masses, Dtype::F32)], OP, |[maxima, masses]| {
        let count = views as c_int;
        launch!(
            OP,
            er_sample_scan(maxima, masses, logits.at, edited.at, view_list.at, count, n, stream)
        )
    })?;
    let (maxima, masses) = (read(&maxima, OP)?, read(&masses, OP)?);
    let drawn = create(device, draws * 5, Dtype::U32, OP, |drawn| {
        write([(&work, Dtype::F32)], OP, |[work]| {
            let count = choices.len() as c_int;
            launch!(
                OP,
                er_sample_draw(
                    drawn,
                    work,
                    logits.at,
                    edited.at,
                    maxima.at,
                    masses.at,
                    view_list.at,
                    choice_list.at,
                    uniforms.at,
                    count,
                    n,
                    stream
                )
            )
        })
    })?;
    let drawn: Vec<u32> = drawn.to_vec1()?;
    let mut drawn = drawn.chunks_exact(5);
    let of_choice = |choice: &Choice| {
        let words = drawn.by_ref().take(choice.draws());
        words.map(|words| read_draw(words, choice.scale)).collect()
    };
    Ok(choices.iter().map(of_choice).collect())
}

/// Index, its logit, the largest logit, and the sum of weights, as `Scan::log_probability` takes them.
fn read_draw(words: &[u32], scale: f64) -> Draw {
    let (logit, top) = (f32::from_bits(words[1]), f32::from_bits(words[2]));
    let total = f64::from_bits(u64::from(words[3]) | u64::from(words[4]) << 32);
    let index = (words[0] != u32::MAX).then_some(words[0] as usize);
    let log_probability = f64::from(logit - top) * scale - total.ln();
    Draw { index, log_probability: if index.is_some() { log_probability } else { f64::NAN } }
}

fn edit(
    packed: &Packed,
    logits: *const c_void,
    edited: &Tensor,
    (rows, vocabulary): (usize, usize),
    stream: Stream,
) -> Result<()> {
    let device = edited.device();
    let [sources, only, places, changes] =
        [&packed.sources, &packed.only, &packed.places, &packed.changes]
            .map(|list| uploaded(list, device));
    let (sources, only, places, changes) = (sources?, only?, places?, changes?);
    let values = Tensor::from_slice(&packed.values, packed.values.len(), device)?;
    let (sources, only, places) = (read(&sources, OP)?, read(&only, OP)?, read(&places, OP)?);
    let (changes, values) = (read(&changes, OP)?, read(&values, OP)?);
    let (count, rows, n) = (packed.places.len() / 4, rows as c_int, vocabulary as c_int);
    write([(edited, Dtype::F32)], OP, |[edited]| {
        launch!(OP, er_sample_copy(edited, logits, sources.at, only.at, rows, n, stream))?;
        let (places, count) = (places.at, count as c_int);
        launch!(
            OP,
            er_sample_edit(
                edited, logits, sources.at, places, changes.at, values.at, count, n, stream
            )
        )
    })
}

fn uploaded(list: &[u32], device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(list, list.len(), device)?)
}
