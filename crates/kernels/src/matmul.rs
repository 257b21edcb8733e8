//! GEMM over slices: a safe wrapper of the `gemm` crate.

use gemm::Parallelism;
use rayon::prelude::*;

use crate::math::add;

/// A matrix to read (rows, cols), with strides in elements.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix.
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn fits(&self) -> bool {
        fits(self.data.len(), (self.rows, self.row_stride), (self.cols, self.col_stride))
    }
}

/// A row-major matrix to write.
pub(crate) struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
}

impl<'a> ViewMut<'a> {
    /// A view of `data`.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols }
    }
}

/// How a GEMM writes its output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// Overwrites it.
    Overwrite,
    /// Adds to it.
    Accumulate,
}

/// Threads of a GEMM.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    /// The calling thread.
    One,
    /// All of rayon's threads.
    All,
}

/// `dst = lhs · rhs`, or `dst += lhs · rhs`.
///
/// # Panics
/// If the shapes are inconsistent or a view exceeds its data: bugs of the calling kernel, which has checked its
/// tensors.
#[allow(unsafe_code)]
pub(crate) fn gemm(
    dst: ViewMut<'_>,
    mode: WriteMode,
    lhs: View<'_>,
    rhs: View<'_>,
    threads: Threads,
) {
    assert!(dst.rows == lhs.rows && dst.cols == rhs.cols, "shapes differ");
    assert!(dst.data.len() >= dst.rows * dst.cols, "the output reaches beyond its data");
    // SAFETY: `dst` is borrowed mutably, has room for the output, and is initialized.
    unsafe { gemm_at(dst.data.as_mut_ptr(), mode, lhs, rhs, threads) }
}

/// `lhs · rhs`, row-major, in new memory, which is written only once.
///
/// # Panics
/// As [`gemm`].
#[allow(unsafe_code)]
pub(crate) fn product(lhs: View<'_>, rhs: View<'_>, threads: Threads) -> Vec<f32> {
    let len = lhs.rows * rhs.cols;
    let mut values = Vec::with_capacity(len);
    // SAFETY: the vector has room for `len` elements, and the GEMM initializes all of them.
    unsafe {
        gemm_at(values.as_mut_ptr(), WriteMode::Overwrite, lhs, rhs, threads);
        values.set_len(len);
    }
    values
}

/// [`gemm`] into the row-major matrix at `dst`. [`WriteMode::Overwrite`] initializes all of its elements and reads none,
/// also if there is nothing to sum.
///
/// # Safety
/// No other reference to `lhs.rows · rhs.cols` elements from `dst` on may exist, and to accumulate, they must be initialized.
#[allow(unsafe_code)]
unsafe fn gemm_at(dst: *mut f32, mode: WriteMode, lhs: View<'_>, rhs: View<'_>, threads: Threads) {
    assert!(lhs.cols == rhs.rows, "shapes differ");
    assert!(lhs.fits() && rhs.fits(), "an operand reaches beyond its data");
    let (rows, cols) = (lhs.rows, rhs.cols);
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(rayon::current_num_threads()),
    };
    // SAFETY: every element of an operand that `gemm` touches is `data[i · row_stride + j · col_stride]` with `i < rows` and
    // `j < cols`; the assertions above bound the largest of these indices by the slice. The caller owns `dst`, so it
    // overlaps neither operand; its rows do not overlap each other. Without `read_dst` it is written only.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            lhs.cols,
            dst,
            1,
            cols as isize,
            mode == WriteMode::Accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Output elements up to which threads split the summed rows (split-K).
const SMALL_OUTPUT: usize = 1 << 19;

/// Rows per split. A constant, so that the order of summation is fixed.
const SPLIT_ROWS: usize = 1024;

/// `dst += aᵀ · b`, summed over many rows: a weight gradient.
///
/// # Shapes
/// `a` (rows, m) and `b` (rows, n); `dst` (m, n).
pub(crate) fn accumulate_weight_grad(
    dst: &mut [f32],
    (a, m): (&[f32], usize),
    (b, n): (&[f32], usize),
    rows: usize,
) {
    if m * n > SMALL_OUTPUT || rows <= SPLIT_ROWS {
        let (a, b) = (View::new(a, rows, m).t(), View::new(b, rows, n));
        return gemm(ViewMut::new(dst, m, n), WriteMode::Accumulate, a, b, Threads::All);
    }
    // A small output leaves `gemm` too little parallelism, but the sum is long.
    let splits: Vec<Vec<f32>> = (0..rows.div_ceil(SPLIT_ROWS))
        .into_par_iter()
        .with_max_len(1)
        .map(|split| {
            let first = split * SPLIT_ROWS;
            let rows = SPLIT_ROWS.min(rows - first);
            let (a, b) = (View::new(&a[first * m..], rows, m), View::new(&b[first * n..], rows, n));
            product(a.t(), b, Threads::One)
        })
        .collect();
    for part in &splits {
        add(dst, part);
    }
}

/// Whether the last element of a matrix lies within `len` elements; `(count, stride)` for each axis.
fn fits(len: usize, rows: (usize, usize), cols: (usize, usize)) -> bool {
    let last = |(count, stride): (usize, usize)| count.checked_sub(1)?.checked_mul(stride);
    match (last(rows), last(cols)) {
        (Some(row), Some(col)) => row.checked_add(col).is_some_and(|last| last < len),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(a: &[f32], b: &[f32], (m, k, n): (usize, usize, usize)) -> Vec<f32> {
        (0..m * n).map(|i| (0..k).map(|l| a[i / n * k + l] * b[l * n + i % n]).sum()).collect()
    }

    #[test]
    fn gemm_equals_the_naive_sum_in_all_layouts() {
        let (m, k, n) = (5, 7, 3);
        let a: Vec<f32> = (0..m * k).map(|i| (i % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i % 5) as f32 - 2.0).collect();
        let b_t: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        let mut out = vec![1.0; m * n];
        let dst = ViewMut::new(&mut out, m, n);
        gemm(dst, WriteMode::Overwrite, View::new(&a, m, k), View::new(&b, k, n), Threads::All);
        assert_eq!(out, naive(&a, &b, (m, k, n)));
        let (lhs, rhs) = (View::new(&a, m, k), View::new(&b, k, n));
        assert_eq!(product(lhs, rhs, Threads::All), out);
        let (lhs, rhs) = (View::new(&[], m, 0), View::new(&[], 0, n));
        assert_eq!(product(lhs, rhs, Threads::One), vec![0.0; m * n]);
        let dst = ViewMut::new(&mut out, m, n);
        gemm(
            dst,
            WriteMode::Accumulate,
            View::new(&a, m, k),
            View::new(&b_t, n, k).t(),
            Threads::One,
        );
        let twice: Vec<f32> = naive(&a, &b, (m, k, n)).iter().map(|x| 2.0 * x).collect();
        assert_eq!(out, twice);
    }

    #[test]
    #[should_panic(expected = "beyond its data")]
    fn a_view_beyond_its_data_is_rejected() {
        let mut out = vec![0.0; 4];
        let short = vec![0.0; 3];
        gemm(
            ViewMut::new(&mut out, 2, 2),
            WriteMode::Overwrite,
            View::new(&short, 2, 2),
            View::new(&[0.0; 4], 2, 2),
            Threads::One,
        );
    }
}
