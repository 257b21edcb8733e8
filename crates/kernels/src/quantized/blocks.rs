//! Dequantization of blocks. The layouts are those of ggml's `ggml-common.h`, all little-endian.
//!
//! Loops have a fixed number of lanes and no branches, so that they auto-vectorize.

use multiversion::multiversion;

use super::BlockFormat;

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
        BlockFormat::Q4_0 => each(bytes, out, q4_0),
        BlockFormat::Q4_1 => each(bytes, out, q4_1),
        BlockFormat::Q5_0 => each(bytes, out, q5_0),
        BlockFormat::Q5_1 => each(bytes, out, q5_1),
        BlockFormat::Q8_0 => each(bytes, out, q8_0),
        BlockFormat::Q4K => each(bytes, out, q4_k),
        BlockFormat::Q5K => each(bytes, out, q5_k),
        BlockFormat::Q6K => each(bytes, out, q6_k),
    }
}

#[inline(always)]
fn each<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (b, y) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        block(b, y);
    }
}

/// IEEE half to single precision, without a branch: a multiplication rebases the exponent, subnormals included;
/// infinities and NaN get the largest exponent back.
#[inline(always)]
pub(super) fn half(bits: u16) -> f32 {
    // 2^112: the difference of the exponent biases, 127 and 15.
    const SCALE: f32 = f32::from_bits(0x7780_0000);
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let special = if magnitude >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
    let value = (f32::from_bits(magnitude) * SCALE).to_bits() | special;
    f32::from_bits(value | (u32::from(bits & 0x8000) << 16))
}

#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    half(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// `d · (q - 8)`: a scale, then 16 bytes with the low nibbles before the high ones.
#[inline(always)]
fn q4_0(b: &[u8; 18], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for i in 0..16 {
        let q = b[2 + i];
        y[i] = d * f32::from(i16::from(q & 15) - 8);
        y[i + 16] = d * f32::from(i16::from(q >> 4) - 8);
    }
}

/// `d · q + m`.
#[inline(always)]
fn q4_1(b: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    for i in 0..16 {
        let q = b[4 + i];
        y[i] = d * f32::from(q & 15) + m;
        y[i + 16] = d * f32::from(q >> 4) + m;
    }
}

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
fn q5_0(b: &[u8; 22], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    let high = fifth_bits(b, 2);
    for i in 0..16 {
        let q = b[6 + i];
        y[i] = d * f32::from(i16::from((q & 15) | high[i]) - 16);
        y[i + 16] = d * f32::from(i16::from((q >> 4) | high[i + 16]) - 16);
    }
}

/// `d · q + m`.
#[inline(always)]
fn q5_1(b: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    let high = fifth_bits(b, 4);
    for i in 0..16 {
        let q = b[8 + i];
        y[i] = d * f32::from((q & 15) | high[i]) + m;
        y[i + 16] = d * f32::from((q >> 4) | high[i + 16]) + m;
    }
}

/// `d · q` with a signed `q`.
#[inline(always)]
fn q8_0(b: &[u8; 34], y: &mut [f32; 32]) {
    let d = half_at(b, 0);
    for i in 0..32 {
        y[i] = d * f32::from(b[2 + i].cast_signed());
    }
}

/// 6-bit scales and minimums of eight groups of 32, in 12 bytes: the first four of each in the low bits of 8 bytes;
/// of the others four bits in the last 4 bytes and two in the high bits of the first 8.
#[inline(always)]
fn scales_and_mins(packed: &[u8]) -> [(f32, f32); 8] {
    let mut all = [(0.0, 0.0); 8];
    for i in 0..4 {
        all[i] = (f32::from(packed[i] & 63), f32::from(packed[i + 4] & 63));
        let low = packed[i + 8];
        let scale = (low & 15) | (packed[i] >> 6 << 4);
        let min = (low >> 4) | (packed[i + 4] >> 6 << 4);
        all[i + 4] = (f32::from(scale), f32::from(min));
    }
    all
}

/// `d · scale · q - dmin · min`: `d`, `dmin`, the 12 bytes of [`scales_and_mins`], then 32 bytes per 64 elements.
#[inline(always)]
fn q4_k(b: &[u8; 144], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    let groups = scales_and_mins(&b[4..16]);
    for (j, y) in y.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let q = &b[16 + 32 * j..][..32];
        let (d1, m1) = (d * groups[2 * j].0, dmin * groups[2 * j].1);
        let (d2, m2) = (d * groups[2 * j + 1].0, dmin * groups[2 * j + 1].1);
        for i in 0..32 {
            y[i] = d1 * f32::from(q[i] & 15) - m1;
            y[i + 32] = d2 * f32::from(q[i] >> 4) - m2;
        }
    }
}

/// [`q4_k`] with a fifth bit: bit `g` of 32 bytes belongs to group `g`.
#[inline(always)]
fn q5_k(b: &[u8; 176], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    let groups = scales_and_mins(&b[4..16]);
    let high = &b[16..48];
    for (j, y) in y.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let q = &b[48 + 32 * j..][..32];
        let (d1, m1) = (d * groups[2 * j].0, dmin * groups[2 * j].1);
        let (d2, m2) = (d * groups[2 * j + 1].0, dmin * groups[2 * j + 1].1);
        for i in 0..32 {
            let bits = high[i] >> (2 * j);
            y[i] = d1 * f32::from((q[i] & 15) | (bits & 1) << 4) - m1;
            y[i + 32] = d2 * f32::from((q[i] >> 4) | (bits & 2) << 3) - m2;
        }
    }
}

/// `d · scale · (q - 32)`: 128 bytes with four bits of each element, 64 with two, 16 scales, `d`. Each half of the
/// block is four groups of 32 that share their bytes.
#[inline(always)]
fn q6_k(b: &[u8; 210], y: &mut [f32; 256]) {
    let d = half_at(b, 208);
    for (n, y) in y.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let low = &b[64 * n..][..64];
        let high = &b[128 + 32 * n..][..32];
        let mut scales = [0.0; 8];
        for (i, scale) in scales.iter_mut().enumerate() {
            *scale = d * f32::from(b[192 + 8 * n + i].cast_signed());
        }
        for s in 0..2 {
            for i in 16 * s..16 * s + 16 {
                let h = high[i];
                let q = [
                    (low[i] & 15) | (h & 3) << 4,
                    (low[i + 32] & 15) | (h >> 2 & 3) << 4,
                    (low[i] >> 4) | (h >> 4 & 3) << 4,
                    (low[i + 32] >> 4) | (h >> 6) << 4,
                ];
                for k in 0..4 {
                    y[i + 32 * k] = scales[s + 2 * k] * f32::from(i16::from(q[k]) - 32);
                }
            }
        }
    }
}
