//! Decoding with AVX-512. Codes of few bits are looked up in a register.

use std::arch::x86_64::*;

use super::{GROUP, Line, NIBBLE_LINES, NIBBLES, PANEL, WORD_LINES, WORDS};

/// Codes of `bits` bits as f32; see [`super::codes`].
///
/// # Safety
/// The machine has the instructions, `lines` holds the codes of a group, and `out` ([`GROUP`], [`PANEL`]).
#[allow(unsafe_code)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn codes(lines: &[Line], bits: usize, offset: u8, out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match bits {
            4 => nibbles(lines, offset, out),
            5 => fives(lines, offset, out),
            6 => sixes(lines, offset, out),
            _ => bytes(lines, out),
        }
    }
}

/// # Safety
/// As [`codes`].
#[allow(unsafe_code)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn bytes(lines: &[Line], out: &mut [f32]) {
    let (from, to) = (lines.as_ptr().cast::<u8>(), out.as_mut_ptr());
    for at in (0..GROUP * PANEL).step_by(WORDS) {
        // SAFETY: both have [`GROUP`] · [`PANEL`] elements.
        unsafe {
            let codes = _mm_load_si128(from.add(at).cast());
            _mm512_storeu_ps(to.add(at), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)));
        }
    }
}

/// The values of the codes `first..first + 16`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn table(first: i32) -> __m512 {
    let index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_cvtepi32_ps(_mm512_add_epi32(index, _mm512_set1_epi32(first)))
}

/// # Safety
/// As [`codes`].
#[allow(unsafe_code)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn nibbles(lines: &[Line], offset: u8, out: &mut [f32]) {
    let values = table(-i32::from(offset));
    for (part, lines) in lines.chunks_exact(WORD_LINES).enumerate() {
        for (n, line) in lines.iter().enumerate() {
            // SAFETY: a line is 64 bytes, and `out` has rows for the inputs of each part.
            unsafe {
                let mut words = _mm512_load_si512(line.0.as_ptr().cast());
                let to = out.as_mut_ptr().add(part * NIBBLES * PANEL + n * WORDS);
                for i in 0..NIBBLES {
                    // The lookup takes the low four bits of each index.
                    _mm512_storeu_ps(to.add(i * PANEL), _mm512_permutexvar_ps(words, values));
                    words = _mm512_srli_epi32::<4>(words);
                }
            }
        }
    }
}

/// # Safety
/// As [`codes`].
#[allow(unsafe_code)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn fives(lines: &[Line], offset: u8, out: &mut [f32]) {
    let (low, high) = lines.split_at(NIBBLE_LINES);
    let (small, large) = (table(-i32::from(offset)), table(16 - i32::from(offset)));
    let fifth = _mm512_set1_epi32(16);
    for (n, high) in high.iter().enumerate() {
        // SAFETY: a line is 64 bytes, and `out` has rows for the inputs of each part.
        unsafe {
            // The first input's bit becomes the fifth.
            let mut high = _mm512_rol_epi32::<4>(_mm512_load_si512(high.0.as_ptr().cast()));
            for (part, low) in low.chunks_exact(WORD_LINES).enumerate() {
                let mut low = _mm512_load_si512(low[n].0.as_ptr().cast());
                let to = out.as_mut_ptr().add(part * NIBBLES * PANEL + n * WORDS);
                for i in 0..NIBBLES {
                    // `fifth ? high : low`; the lookup takes the low five bits of each index.
                    let index = _mm512_ternarylogic_epi32::<0xca>(fifth, high, low);
                    let values = _mm512_permutex2var_ps(small, index, large);
                    _mm512_storeu_ps(to.add(i * PANEL), values);
                    low = _mm512_srli_epi32::<4>(low);
                    high = _mm512_ror_epi32::<1>(high);
                }
            }
        }
    }
}

/// # Safety
/// As [`codes`].
#[allow(unsafe_code)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn sixes(lines: &[Line], offset: u8, out: &mut [f32]) {
    let (low, high) = lines.split_at(NIBBLE_LINES);
    // An integer below 2^23 in the mantissa of 2^23 is that sum.
    let base = _mm512_set1_epi32(0x4b00_0000);
    let (first, fifth) = (_mm512_set1_epi32(0x0f), _mm512_set1_epi32(0x30));
    let zero = _mm512_set1_ps(8_388_608.0 + f32::from(offset));
    for (pair, low) in low.chunks_exact(2 * WORD_LINES).enumerate() {
        for n in 0..WORD_LINES {
            // SAFETY: a line is 64 bytes, and `out` has rows for the inputs of each part.
            unsafe {
                // The first input's bits become the fifth and sixth.
                let high = high[pair * WORD_LINES + n].0.as_ptr();
                let mut high = _mm512_rol_epi32::<4>(_mm512_load_si512(high.cast()));
                for half in 0..2 {
                    let low = low[half * WORD_LINES + n].0.as_ptr();
                    let mut low = _mm512_load_si512(low.cast());
                    let part = 2 * pair + half;
                    let to = out.as_mut_ptr().add(part * NIBBLES * PANEL + n * WORDS);
                    for i in 0..NIBBLES {
                        // `base | (low & first)`, then `| (high & fifth)`.
                        let bits = _mm512_ternarylogic_epi32::<0xf8>(base, low, first);
                        let bits = _mm512_ternarylogic_epi32::<0xf8>(bits, high, fifth);
                        let values = _mm512_sub_ps(_mm512_castsi512_ps(bits), zero);
                        _mm512_storeu_ps(to.add(i * PANEL), values);
                        low = _mm512_srli_epi32::<4>(low);
                        high = _mm512_ror_epi32::<2>(high);
                    }
                }
            }
        }
    }
}
