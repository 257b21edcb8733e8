//! llama.cpp's row order.

/// The stored row of row `row` of a query or key weight, for the architecture `llama`.
///
/// llama.cpp applies RoPE to adjacent elements of a head, `transformers` to its two halves, so the converter moves row
/// `half · head_dim / 2 + i` of a head to `2 · i + half`.
pub(super) fn interleaved(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, i) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * i + half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_head_are_its_interleaved_halves() {
        let rows: Vec<usize> = (0..8).map(|row| interleaved(row, 4)).collect();
        assert_eq!(rows, [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
