//! GEMM over slices: the `gemm` crate, or [`blocked`] where that is faster.

mod blocked;

use gemm::Parallelism;
use rayon::prelude::*;

use crate::math::add;
use crate::simd_level::simd_level;

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

    /// The element at `row` and `col`.
    fn at(&self, row: usize, col: usize) -> f32 {
        self.data[row * self.row_stride + col * self.col_stride]
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
    let level = simd_level();
    if blocked::is_fastest(level, (rows, cols), lhs.cols) {
        // SAFETY: the caller's promise.
        return unsafe { blocked::gemm(level, dst, mode, lhs, rhs, threads) };
    }
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

/// Output elements up to which the summed rows are split among threads (split-K): each split has an output of its own.
const SPLIT_OUTPUT: usize = 1 << 20;

/// Rows up to which they are not split.
const SPLIT_ROWS: usize = 1024;

/// The number of splits is a multiple of this, so that threads get equal shares. It depends on the rows alone: so does
/// the order of summation.
const SPLITS: usize = 4;

/// Maximum splits.
const MAX_SPLITS: usize = 16;

/// Elements of the output per task that adds up the splits.
const SUM_TASK: usize = 1 << 14;

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
    let is_split = m * n <= SPLIT_OUTPUT && rows > SPLIT_ROWS;
    if !is_split || blocked::is_fastest(simd_level(), (m, n), rows) {
        let (a, b) = (View::new(a, rows, m).t(), View::new(b, rows, n));
        return gemm(ViewMut::new(dst, m, n), WriteMode::Accumulate, a, b, Threads::All);
    }
    // The `gemm` crate on all threads waits for all of them after every few hundred rows.
    let count = rows.div_ceil(SPLIT_ROWS).min(MAX_SPLITS).next_multiple_of(SPLITS);
    let splits: Vec<Vec<f32>> = (0..count)
        .into_par_iter()
        .with_max_len(1)
        .map(|split| {
            let (first, end) = (rows * split / count, rows * (split + 1) / count);
            let (a, b) = (&a[first * m..end * m], &b[first * n..end * n]);
            let (a, b) = (View::new(a, end - first, m), View::new(b, end - first, n));
            product(a.t(), b, Threads::One)
        })
        .collect();
    dst.par_chunks_mut(SUM_TASK).enumerate().for_each(|(task, dst)| {
        for split in &splits {
            add(dst, &split[task * SUM_TASK..][..dst.len()]);
        }
    });
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
    fn weight_gradients_are_sums_over_all_rows_in_one_order_for_any_number_of_threads() {
        let run = |threads: usize, a: &[f32], b: &[f32], (rows, m, n): (usize, usize, usize)| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut dst = vec![1.0; m * n];
            pool.install(|| accumulate_weight_grad(&mut dst, (a, m), (b, n), rows));
            dst
        };
        let value = |i: usize| ((i * 7919) % 23) as f32 - 11.0;
        // Unsplit, split, in the maximum number of splits, and with an output of several tasks.
        let long = SPLIT_ROWS * MAX_SPLITS + 1;
        let split = SPLIT_ROWS + 1;
        for shape in [(SPLIT_ROWS, 3, 5), (split, 7, 5), (long, 2, 3), (split, 2, SUM_TASK)] {
            let (rows, m, n) = shape;
            let a: Vec<f32> = (0..rows * m).map(value).collect();
            let b: Vec<f32> = (0..rows * n).map(|i| value(i + 5)).collect();
            // Products of small integers have exact sums.
            for (i, found) in run(2, &a, &b, shape).iter().enumerate() {
                let sum: f32 = (0..rows).map(|row| a[row * m + i / n] * b[row * n + i % n]).sum();
                assert_eq!(*found, 1.0 + sum, "{shape:?}, element {i}");
            }
            let a: Vec<f32> = a.iter().map(|a| a / 10.0).collect();
            assert!(run(1, &a, &b, shape) == run(3, &a, &b, shape), "{shape:?}");
        }
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
