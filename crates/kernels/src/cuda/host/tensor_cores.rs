//! The emulated tensor-core instructions against plain products in the fragment layouts of the PTX ISA, and what the
//! emulation finds.

use half::bf16;

use super::ThreadOrder;
use super::tests::stderr_of_abort;

unsafe extern "C" {
    fn er_host_multiply(c: *mut f32, a: *const u32, b: *const u32) -> i32;
    fn er_host_load(
        out: *mut u32,
        matrices: *const bf16,
        stride: i32,
        shift: i32,
        transposed: i32,
    ) -> i32;
    fn er_host_copy(out: *mut bf16, source: *const bf16, threads: i32, mistake: i32) -> i32;
}

const LANES: usize = 32;

/// Row and column of element `i` of a lane's fragment of A, (16, 16), as in the PTX ISA, "Matrix fragments for
/// mma.m16n8k16 with floating point type".
fn place_in_a(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    let row = if matches!(i, 0 | 1 | 4 | 5) { group } else { group + 8 };
    (row, thread * 2 + (i & 1) + if i < 4 { 0 } else { 8 })
}

/// The same for B, (16, 8).
fn place_in_b(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (thread * 2 + (i & 1) + if i < 2 { 0 } else { 8 }, group)
}

/// The same for C, (16, 8).
fn place_in_c(lane: usize, i: usize) -> (usize, usize) {
    let (group, thread) = (lane >> 2, lane % 4);
    (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1))
}

/// Small integers: products and sums are exact.
fn a(row: usize, column: usize) -> f32 {
    ((row * 7 + column * 3) % 11) as f32 - 5.0
}

fn b(row: usize, column: usize) -> f32 {
    ((row * 5 + column * 9) % 13) as f32 - 6.0
}

fn packed(low: f32, high: f32) -> u32 {
    u32::from(bf16::from_f32(low).to_bits()) | u32::from(bf16::from_f32(high).to_bits()) << 16
}

/// Every lane's registers of a matrix, two elements each.
fn fragments(
    registers: usize,
    place: impl Fn(usize, usize) -> (usize, usize),
    of: impl Fn(usize, usize) -> f32,
) -> Vec<u32> {
    let element = |lane, i| {
        let (row, column) = place(lane, i);
        of(row, column)
    };
    let register =
        |lane, register| packed(element(lane, 2 * register), element(lane, 2 * register + 1));
    (0..LANES).flat_map(|lane| (0..registers).map(move |i| register(lane, i))).collect()
}

fn multiplied(a: &[u32], b: &[u32]) -> Vec<f32> {
    assert_eq!((a.len(), b.len()), (4 * LANES, 2 * LANES));
    let mut c = vec![0.0; 4 * LANES];
    // SAFETY: the fragments have the sizes that the kernel reads and writes.
    assert_eq!(unsafe { er_host_multiply(c.as_mut_ptr(), a.as_ptr(), b.as_ptr()) }, 0);
    c
}

/// Whether the fragments of C are those of the plain product.
fn is_the_product(c: &[f32]) -> bool {
    let expected = |lane, i| {
        let (row, column) = place_in_c(lane, i);
        (0..16).map(|k| a(row, k) * b(k, column)).sum::<f32>()
    };
    c.iter().enumerate().all(|(at, c)| *c == expected(at / 4, at % 4))
}

#[test]
fn an_mma_is_the_product_of_matrices_in_the_documented_fragments() {
    let (left, right) = (fragments(4, place_in_a, a), fragments(2, place_in_b, b));
    assert!(is_the_product(&multiplied(&left, &right)));
}

#[test]
fn an_mma_of_wrong_fragments_is_another_matrix() {
    let (left, right) = (fragments(4, place_in_a, a), fragments(2, place_in_b, b));
    // The lower rows before the right columns: registers 1 and 2 exchanged.
    let exchanged = |lane: usize, i: usize| place_in_a(lane, [0, 1, 4, 5, 2, 3, 6, 7][i]);
    assert!(!is_the_product(&multiplied(&fragments(4, exchanged, a), &right)));
    // Rows for columns.
    let transposed = |lane: usize, i: usize| {
        let (row, column) = place_in_b(lane, i);
        (column, row)
    };
    assert!(!is_the_product(&multiplied(&left, &fragments(2, transposed, b))));
}

fn loaded(stride: usize, shift: usize, transposed: bool) -> Vec<u32> {
    let matrices: Vec<bf16> = (0..256).map(|i| bf16::from_f32(i as f32)).collect();
    let mut out = vec![0; 4 * LANES];
    let (stride, shift) = (stride as i32, shift as i32);
    // SAFETY: there are 32 rows of 8 elements, and 4 registers per lane.
    let code = unsafe {
        er_host_load(out.as_mut_ptr(), matrices.as_ptr(), stride, shift, transposed.into())
    };
    assert_eq!(code, 0);
    out
}

#[test]
fn matrices_are_loaded_as_documented() {
    for transposed in [false, true] {
        for (at, found) in loaded(8, 0, transposed).into_iter().enumerate() {
            let (lane, matrix) = (at / 4, at % 4);
            let (row, column) = (lane / 4, lane % 4 * 2);
            let element = |i: usize| match transposed {
                false => (matrix * 64 + row * 8 + column + i) as f32,
                true => (matrix * 64 + (column + i) * 8 + row) as f32,
            };
            assert_eq!(found, packed(element(0), element(1)), "lane {lane}, matrix {matrix}");
        }
    }
}

/// What each thread reads of its neighbor's asynchronous copy.
fn copied(mistake: i32, order: ThreadOrder) -> Vec<f32> {
    let threads = 64;
    let source: Vec<bf16> = (0..threads * 8).map(|i| bf16::from_f32((i / 8) as f32)).collect();
    let mut out = vec![bf16::ZERO; threads * 8];
    super::set_thread_order(order);
    // SAFETY: each thread copies 8 elements.
    let code = unsafe { er_host_copy(out.as_mut_ptr(), source.as_ptr(), threads as i32, mistake) };
    super::set_thread_order(ThreadOrder::Ascending);
    assert_eq!(code, 0);
    out.into_iter().step_by(8).map(bf16::to_f32).collect()
}

#[test]
fn an_asynchronous_copy_arrives_when_its_group_is_waited_for() {
    let expected: Vec<f32> = (0..64).map(|thread| ((thread + 1) % 64) as f32).collect();
    for order in [ThreadOrder::Ascending, ThreadOrder::Descending, ThreadOrder::Alternating] {
        assert_eq!(copied(0, order), expected);
        let too_early = copied(1, order);
        assert!(too_early.iter().any(|x| x.is_nan()), "{too_early:?}");
    }
}

#[test]
fn a_missing_barrier_after_the_wait_is_found_in_an_order_of_threads() {
    assert!(copied(2, ThreadOrder::Ascending).iter().any(|x| x.is_nan()));
}

/// Selects the fault in the child process.
const FAULT: &str = "EMBODIED_R_TEST_FAULT";

#[test]
fn misuse_aborts_the_process_with_the_kernels_name() {
    match std::env::var(FAULT).as_deref() {
        Ok("0") => drop(copied(3, ThreadOrder::Ascending)),
        Ok("1") => drop(loaded(8, 1, false)),
        // Rows 128 bytes apart start in the same bank.
        Ok("2") => drop(loaded(64, 0, true)),
        _ => {
            for (fault, kernel, message) in [
                (0, "copy_kernel", "a thread exits with asynchronous copies in flight"),
                (1, "load_kernel", "a row of ldmatrix is not 16-byte aligned"),
                (2, "load_kernel", "share banks of shared memory"),
            ] {
                let test = "tensor_cores::misuse_aborts_the_process_with_the_kernels_name";
                let stderr = stderr_of_abort(test, fault);
                assert!(stderr.contains(kernel) && stderr.contains(message), "{stderr}");
            }
        }
    }
}
