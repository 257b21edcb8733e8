//! The packed layout of blocks.
//!
//! A panel's blocks for the same inputs are packed together, in cache lines:
//! - the scales `d` of its outputs in half precision (2 lines) and, with minimums, `m` (2 lines);
//! - for each group of 32 inputs: the integer scales, a byte each (1 line for each scale of the group), and minimums
//!   (1 line), if the format has them; then the codes.
//!
//! Codes of 8 bits have a line per input. Of smaller ones the low four bits of 8 inputs are a word per output, 16
//! outputs a line; further bits follow in the same way, 32 or 16 inputs per word.

use super::PANEL;
use crate::quantized::BlockFormat;
use crate::quantized::blocks::{Block, Coding, GROUP};

/// Words of a line.
pub(super) const WORDS: usize = 16;

/// Lines with a word per output.
pub(super) const WORD_LINES: usize = PANEL / WORDS;

/// Inputs whose low four bits are a word.
pub(super) const NIBBLES: usize = 8;

/// Lines with the low four bits of a group.
pub(super) const NIBBLE_LINES: usize = GROUP / NIBBLES * WORD_LINES;

/// A cache line.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Line(pub(super) [u8; 64]);

impl Default for Line {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Line {
    fn or_word(&mut self, index: usize, bits: u32) {
        if let Some(word) = self.0.as_chunks_mut::<4>().0.get_mut(index) {
            *word = (u32::from_le_bytes(*word) | bits).to_le_bytes();
        }
    }
}

/// How a format is packed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    format: BlockFormat,
    coding: Coding,
}

impl Layout {
    /// The layout of a format; `None` if it has no blocks.
    pub(super) fn of(format: BlockFormat) -> Option<Self> {
        Some(Self { format, coding: Coding::of(format)? })
    }

    pub(super) fn coding(&self) -> Coding {
        self.coding
    }

    /// Elements per block.
    pub(super) fn block_len(&self) -> usize {
        self.format.block_len()
    }

    /// Groups per block.
    pub(super) fn groups(&self) -> usize {
        self.block_len() / GROUP
    }

    /// Whether groups have integer scales.
    fn has_scales(&self) -> bool {
        self.groups() > 1
    }

    /// Lines of `d` and `m`.
    fn header_lines(&self) -> usize {
        let of_one = PANEL * size_of::<u16>() / size_of::<Line>();
        of_one * if self.coding.has_mins { 2 } else { 1 }
    }

    /// Lines of a group's integer scales, and of its minimums.
    fn scale_lines(&self) -> (usize, usize) {
        match self.has_scales() {
            true => (GROUP / self.coding.scale_group, usize::from(self.coding.has_mins)),
            false => (0, 0),
        }
    }

    fn group_lines(&self) -> usize {
        let (scales, mins) = self.scale_lines();
        scales + mins + GROUP * self.coding.bits * PANEL / 8 / size_of::<Line>()
    }

    /// Lines of a panel's blocks.
    pub(super) fn block_lines(&self) -> usize {
        self.header_lines() + self.groups() * self.group_lines()
    }

    /// Rows of a decoded group: codes, scales and, if it has them, minimums.
    pub(super) fn group_rows(&self) -> usize {
        GROUP + GROUP / self.coding.scale_group + usize::from(self.coding.has_mins)
    }

    /// The parts of group `group` of a panel.
    pub(super) fn group<'a>(&self, panel: &'a [Line], group: usize) -> Group<'a> {
        let block = &panel[group / self.groups() * self.block_lines()..][..self.block_lines()];
        let (header, groups) = block.split_at(self.header_lines());
        let lines = &groups[group % self.groups() * self.group_lines()..][..self.group_lines()];
        let (scales, mins) = self.scale_lines();
        let (scales, lines) = lines.split_at(scales);
        let (mins, codes) = lines.split_at(mins);
        Group { header, scales, mins, codes }
    }

    /// Packs rows of whole blocks, at most [`PANEL`], into the lines of a panel, which are zero.
    pub(super) fn pack(&self, rows: &[&[u8]], lines: &mut [Line]) {
        let mut block = Block::new();
        for (output, row) in rows.iter().enumerate() {
            let blocks = row.chunks_exact(self.format.block_bytes());
            for (bytes, lines) in blocks.zip(lines.chunks_exact_mut(self.block_lines())) {
                block.read(self.format, bytes);
                let (header, groups) = lines.split_at_mut(self.header_lines());
                for (value, lines) in [block.d, block.m].iter().zip(header.chunks_mut(2)) {
                    let at = output * size_of::<u16>();
                    lines[at / 64].0[at % 64..][..2].copy_from_slice(&value.to_le_bytes());
                }
                for (group, lines) in groups.chunks_exact_mut(self.group_lines()).enumerate() {
                    self.pack_group(&block, group, output, lines);
                }
            }
        }
    }

    /// Packs group `group` of an output's block.
    fn pack_group(&self, block: &Block, group: usize, output: usize, lines: &mut [Line]) {
        let (scales, mins) = self.scale_lines();
        let (scale_lines, lines) = lines.split_at_mut(scales);
        let (min_lines, codes) = lines.split_at_mut(mins);
        for (i, line) in scale_lines.iter_mut().enumerate() {
            line.0[output] = block.scales[group * scales + i].cast_unsigned();
        }
        if let [line] = min_lines {
            line.0[output] = block.mins[group];
        }
        let values = &block.codes[group * GROUP..][..GROUP];
        if self.coding.bits == 8 {
            for (line, code) in codes.iter_mut().zip(values) {
                line.0[output] = code.cast_unsigned();
            }
            return;
        }
        let (low, high) = codes.split_at_mut(NIBBLE_LINES);
        let (line, word) = (output / WORDS, output % WORDS);
        let high_bits = self.coding.bits - 4;
        for (input, code) in values.iter().enumerate() {
            let code = u32::from(code.cast_unsigned().wrapping_add(self.coding.offset));
            let nibble = (code & 15) << (4 * (input % NIBBLES));
            low[input / NIBBLES * WORD_LINES + line].or_word(word, nibble);
            if let Some(inputs) = 32_usize.checked_div(high_bits) {
                let bits = (code >> 4) << (high_bits * (input % inputs));
                high[input / inputs * WORD_LINES + line].or_word(word, bits);
            }
        }
    }
}

/// The parts of a panel's group.
pub(super) struct Group<'a> {
    /// `d` and, with minimums, `m`: 2 lines each.
    pub(super) header: &'a [Line],
    /// Integer scales.
    pub(super) scales: &'a [Line],
    /// Integer minimums.
    pub(super) mins: &'a [Line],
    /// Codes.
    pub(super) codes: &'a [Line],
}
