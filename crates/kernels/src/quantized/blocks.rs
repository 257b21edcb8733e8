//! Block layouts: those of ggml's `ggml-common.h`, all little-endian.
//!
//! A block of every format is read as integer codes with their scales ([`Block`]). Loops have a fixed number of lanes and
//! no branches, so that they auto-vectorize.

use multiversion::multiversion;

use super::format::BlockFormat;

/// Elements that share a minimum, and most formats' elements that share a scale.
pub(crate) const GROUP: usize = 32;

/// How a format codes its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coding {
    /// Bits per code.
    pub(crate) bits: usize,
    /// What a stored, unsigned code exceeds the signed one by.
    pub(crate) offset: u8,
    /// Elements that share a scale.
    pub(crate) scale_group: usize,
    /// Whether groups have minimums.
    pub(crate) has_mins: bool,
}

impl Coding {
    /// The coding of a format; `None` for floats.
    pub(crate) fn of(format: BlockFormat) -> Option<Self> {
        let coding = |bits, offset, has_mins| Self { bits, offset, scale_group: GROUP, has_mins };
        match format {
            BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 => None,
            BlockFormat::Q4_0 => Some(coding(4, 8, false)),
            BlockFormat::Q4_1 | BlockFormat::Q4K => Some(coding(4, 0, true)),
            BlockFormat::Q5_0 => Some(coding(5, 16, false)),
            BlockFormat::Q5_1 | BlockFormat::Q5K => Some(coding(5, 0, true)),
            BlockFormat::Q8_0 => Some(coding(8, 128, false)),
            BlockFormat::Q6K => Some(Self { scale_group: 16, ..coding(6, 32, false) }),
        }
    }
}

/// A block's codes and scales. Element `i` is `d · scales[i / scale_group] · codes[i] - m · mins[i / GROUP]`; formats
/// without their own scales per group have scales and minimums of 1.
pub(crate) struct Block {
    /// The scale, in IEEE half precision.
    pub(crate) d: u16,
    /// The scale of the minimums, in IEEE half precision.
    pub(crate) m: u16,
    /// Integer scales.
    pub(crate) scales: [i8; 16],
    /// Integer minimums.
    pub(crate) mins: [u8; 8],
    /// Signed codes.
    pub(crate) codes: [i8; 256],
}

impl Block {
    /// A block with scales of 1 and no minimums.
    pub(crate) fn new() -> Self {
        Self { d: 0, m: 0, scales: [1; 16], mins: [1; 8], codes: [0; 256] }
    }

    /// Reads a block of `format`, which codes its elements, from its bytes.
    pub(crate) fn read(&mut self, format: BlockFormat, bytes: &[u8]) {
        match format {
            BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 => {}
            BlockFormat::Q4_0 => one(bytes, self, q4_0),
            BlockFormat::Q4_1 => one(bytes, self, q4_1),
            BlockFormat::Q5_0 => one(bytes, self, q5_0),
            BlockFormat::Q5_1 => one(bytes, self, q5_1),
            BlockFormat::Q8_0 => one(bytes, self, q8_0),
            BlockFormat::Q4K => one(bytes, self, q4_k),
            BlockFormat::Q5K => one(bytes, self, q5_k),
            BlockFormat::Q6K => one(bytes, self, q6_k),
        }
    }
}

fn one<const BYTES: usize>(
    bytes: &[u8],
    block: &mut Block,
    read: impl Fn(&[u8; BYTES], &mut Block),
) {
    if let Some(bytes) = bytes.as_array() {
        read(bytes, block);
    }
}

/// Dequantizes whole blocks into `out`, which has the matching length.
#[multiversion(targets = "simd")]
pub(super) fn dequantize(format: BlockFormat, bytes: &[u8], out: &mut [f32]) {
    match format {
        BlockFormat::F32 => {
            for (y, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *y = f32::from_le_bytes(*b);
            }
        }
        BlockFormat::F16 => {
            for (y, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *y = half(u16::from_le_bytes(*b));
            }
        }
        BlockFormat::Bf16 => {
            for (y, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *y = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        BlockFormat::Q4_0 => each::<18, 32, GROUP>(bytes, out, q4_0),
        BlockFormat::Q4_1 => each::<20, 32, GROUP>(bytes, out, q4_1),
        BlockFormat::Q5_0 => each::<22, 32, GROUP>(bytes, out, q5_0),
        BlockFormat::Q5_1 => each::<24, 32, GROUP>(bytes, out, q5_1),
        BlockFormat::Q8_0 => each::<34, 32, GROUP>(bytes, out, q8_0),
        BlockFormat::Q4K => each::<144, 256, GROUP>(bytes, out, q4_k),
        BlockFormat::Q5K => each::<176, 256, GROUP>(bytes, out, q5_k),
        BlockFormat::Q6K => each::<210, 256, 16>(bytes, out, q6_k),
    }
}

#[inline(always)]
fn each<const BYTES: usize, const LEN: usize, const SCALE_GROUP: usize>(
    bytes: &[u8],
    out: &mut [f32],
    read: impl Fn(&[u8; BYTES], &mut Block),
) {
    let mut block = Block::new();
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
        read(bytes, &mut block);
        let (d, m) = (half(block.d), half(block.m));
        let codes = block.codes.as_chunks::<SCALE_GROUP>().0;
        for (g, (codes, out)) in codes.iter().zip(out.as_chunks_mut::<SCALE_GROUP>().0).enumerate()
        {
            let scale = d * f32::from(block.scales[g]);
            let min = m * f32::from(block.mins[g * SCALE_GROUP / GROUP]);
            for (y, q) in out.iter_mut().zip(codes) {
                *y = scale * f32::from(*q) - min;
            }
        }
    }
}

/// IEEE half to single precision, without a branch: a multiplication rebases the exponent, subnormals included;
/// infinities and NaN get the largest exponent back.
#[inline(always)]
pub(crate) fn half(bits: u16) -> f32 {
    // 2^112: the difference of the exponent biases, 127 and 15.
    const SCALE: f32 = f32::from_bits(0x7780_0000);
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let special = if magnitude >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
    let value = (f32::from_bits(magnitude) * SCALE).to_bits() | special;
    f32::from_bits(value | (u32::from(bits & 0x8000) << 16))
}

/// The `f16` at an offset, as its bits.
#[inline(always)]
fn bits_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

/// The signed code of an unsigned one.
#[inline(always)]
fn signed(code: u8, offset: u8) -> i8 {
    code.wrapping_sub(offset).cast_signed()
}

/// `d · (q - 8)`: a scale, then 16 bytes with the low nibbles before the high ones.
#[inline(always)]
fn q4_0(b: &[u8; 18], block: &mut Block) {
    block.d = bits_at(b, 0);
    for i in 0..16 {
        let q = b[2 + i];
        block.codes[i] = signed(q & 15, 8);
        block.codes[i + 16] = signed(q >> 4, 8);
    }
}

/// `d · q + m`.
#[inline(always)]
fn q4_1(b: &[u8; 20], block: &mut Block) {
    (block.d, block.m) = (bits_at(b, 0), bits_at(b, 2) ^ SIGN);
    for i in 0..16 {
        let q = b[4 + i];
        block.codes[i] = signed(q & 15, 0);
        block.codes[i + 16] = signed(q >> 4, 0);
    }
}

/// The sign of an `f16`: these formats add their minimum.
const SIGN: u16 = 0x8000;

/// The fifth bits of 32 elements, as 16 where set.
#[inline(always)]
fn fifth_bits(b: &[u8], at: usize) -> [u8; 32] {
    let bits = u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let mut high = [0; 32];
    for (i, high) in high.iter_mut().enumerate() {
        *high = ((bits >> i) & 1) as u8 * 16;
    }
    high
}

/// `d · (q - 16)`: a scale, the fifth bits, then nibbles as in [`q4_0`].
#[inline(always)]
fn q5_0(b: &[u8; 22], block: &mut Block) {
    block.d = bits_at(b, 0);
    let high = fifth_bits(b, 2);
    for i in 0..16 {
        let q = b[6 + i];
        block.codes[i] = signed((q & 15) | high[i], 16);
        block.codes[i + 16] = signed((q >> 4) | high[i + 16], 16);
    }
}

/// `d · q + m`.
#[inline(always)]
fn q5_1(b: &[u8; 24], block: &mut Block) {
    (block.d, block.m) = (bits_at(b, 0), bits_at(b, 2) ^ SIGN);
    let high = fifth_bits(b, 4);
    for i in 0..16 {
        let q = b[8 + i];
        block.codes[i] = signed((q & 15) | high[i], 0);
        block.codes[i + 16] = signed((q >> 4) | high[i + 16], 0);
    }
}

/// `d · q` with a signed `q`.
#[inline(always)]
fn q8_0(b: &[u8; 34], block: &mut Block) {
    block.d = bits_at(b, 0);
    for i in 0..32 {
        block.codes[i] = b[2 + i].cast_signed();
    }
}

/// 6-bit scales and minimums of eight groups of 32, in 12 bytes: the first four of each in the low bits of 8 bytes;
/// of the others four bits in the last 4 bytes and two in the high bits of the first 8.
#[inline(always)]
fn scales_and_mins(packed: &[u8], block: &mut Block) {
    for i in 0..4 {
        block.scales[i] = signed(packed[i] & 63, 0);
        block.mins[i] = packed[i + 4] & 63;
        let low = packed[i + 8];
        block.scales[i + 4] = signed((low & 15) | (packed[i] >> 6 << 4), 0);
        block.mins[i + 4] = (low >> 4) | (packed[i + 4] >> 6 << 4);
    }
}

/// `d · scale · q - dmin · min`: `d`, `dmin`, the 12 bytes of [`scales_and_mins`], then 32 bytes per 64 elements.
#[inline(always)]
fn q4_k(b: &[u8; 144], block: &mut Block) {
    (block.d, block.m) = (bits_at(b, 0), bits_at(b, 2));
    scales_and_mins(&b[4..16], block);
    for (j, codes) in block.codes.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let q = &b[16 + 32 * j..][..32];
        for i in 0..32 {
            codes[i] = signed(q[i] & 15, 0);
            codes[i + 32] = signed(q[i] >> 4, 0);
        }
    }
}

/// [`q4_k`] with a fifth bit: bit `g` of 32 bytes belongs to group `g`.
#[inline(always)]
fn q5_k(b: &[u8; 176], block: &mut Block) {
    (block.d, block.m) = (bits_at(b, 0), bits_at(b, 2));
    scales_and_mins(&b[4..16], block);
    let high = &b[16..48];
    for (j, codes) in block.codes.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let q = &b[48 + 32 * j..][..32];
        for i in 0..32 {
            let bits = high[i] >> (2 * j);
            codes[i] = signed((q[i] & 15) | (bits & 1) << 4, 0);
            codes[i + 32] = signed((q[i] >> 4) | (bits & 2) << 3, 0);
        }
    }
}

/// `d · scale · (q - 32)`: 128 bytes with four bits of each element, 64 with two, 16 scales, `d`. Each half of the
/// block is four groups of 32 that share their bytes.
#[inline(always)]
fn q6_k(b: &[u8; 210], block: &mut Block) {
    block.d = bits_at(b, 208);
    for (scale, byte) in block.scales.iter_mut().zip(&b[192..208]) {
        *scale = byte.cast_signed();
    }
    for (n, codes) in block.codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let low = &b[64 * n..][..64];
        let high = &b[128 + 32 * n..][..32];
        for i in 0..32 {
            let h = high[i];
            codes[i] = signed((low[i] & 15) | (h & 3) << 4, 32);
            codes[i + 32] = signed((low[i + 32] & 15) | (h >> 2 & 3) << 4, 32);
            codes[i + 64] = signed((low[i] >> 4) | (h >> 4 & 3) << 4, 32);
            codes[i + 96] = signed((low[i + 32] >> 4) | (h >> 6) << 4, 32);
        }
    }
}
