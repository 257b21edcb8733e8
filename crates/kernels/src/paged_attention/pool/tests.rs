use std::ops::Range;

use super::super::{DecodeKernel, PooledQueryChunk};
use super::*;
use crate::device::with_cuda_emulation;

const HEADS: Heads = Heads { query: 6, kv: 2, dim: 12 };
const PAGES: usize = 24;

fn noise(seed: u32, rows: usize, width: usize, dtype: DType) -> Tensor {
    let value = |i: u32| ((i * 7919 + seed * 104_729) % 1013) as f32 / 253.25 - 2.0;
    let values: Vec<f32> = (0..(rows * width) as u32).map(value).collect();
    let noise = Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap();
    noise.to_dtype(dtype).unwrap()
}

/// A pool with all slots filled, those of the `rest` from a token on with its value.
fn filled(heads: Heads, dtype: DType, rest: Option<(usize, f32)>) -> PagePool {
    let tokens = PAGES * PAGE_SIZE;
    let pool = PagePool::new(heads, PAGES, dtype, &Device::Cpu).unwrap();
    let slots: Vec<(usize, usize)> =
        (0..tokens).map(|token| (token / PAGE_SIZE, token % PAGE_SIZE)).collect();
    let [k, v] = [1, 2].map(|seed| {
        let noise = noise(seed, tokens, heads.kv_size(), dtype);
        let Some((first, value)) = rest else { return noise };
        let rest = Tensor::full(value, (tokens - first, heads.kv_size()), &Device::Cpu);
        let rest = rest.unwrap().to_dtype(dtype).unwrap();
        Tensor::cat(&[noise.narrow(0, 0, first).unwrap(), rest], 0).unwrap()
    });
    pool.store(&k, &v, &SlotMapping::new(&slots, &Device::Cpu).unwrap()).unwrap();
    pool
}

fn pool() -> PagePool {
    filled(HEADS, DType::F32, None)
}

fn attended(pool: &PagePool, q: &Tensor, chunks: &[PooledQueryChunk]) -> Vec<Vec<f32>> {
    attended_by(DecodeKernel::TensorCores, pool, q, chunks, None)
}

/// Outputs and log-sum-exps of each row.
fn attended_by(
    kernel: DecodeKernel,
    pool: &PagePool,
    q: &Tensor,
    chunks: &[PooledQueryChunk],
    window: Option<usize>,
) -> Vec<Vec<f32>> {
    let plan = PagedAttentionPlan::new(chunks, pool.heads, q.dims()[0], &Device::Cpu).unwrap();
    outputs(&pool.forward(q, &plan.with_kernel(kernel), window).unwrap())
}

fn outputs(attended: &AttentionOutput) -> Vec<Vec<f32>> {
    let out = attended.out.to_dtype(DType::F32).unwrap();
    Tensor::cat(&[&out, &attended.log_sum_exp], 1).unwrap().to_vec2().unwrap()
}

/// The storage and kernel of each test, with groups of 1 to 20 query heads.
fn variants() -> impl Iterator<Item = (Heads, DType, DecodeKernel)> {
    let heads = [
        HEADS,
        Heads { query: 3, kv: 3, dim: 80 },
        Heads { query: 7, kv: 1, dim: 64 },
        Heads { query: 16, kv: 2, dim: 128 },
        Heads { query: 20, kv: 1, dim: 96 },
    ];
    let (tensor, cuda) = (DecodeKernel::TensorCores, DecodeKernel::CudaCores);
    let kernels = [(DType::F32, cuda), (DType::BF16, cuda), (DType::BF16, tensor)];
    heads.into_iter().flat_map(move |heads| kernels.map(|(dtype, by)| (heads, dtype, by)))
}

/// Twelve sequences with nine pages in common, then pages of their own.
fn sharing() -> Vec<PooledQueryChunk> {
    let chunk = |row: usize| PooledQueryChunk {
        rows: row..row + 1,
        position: 9 * PAGE_SIZE + 10 * row,
        pages: (0..9).chain([9 + row, 21]).collect(),
        causal: true,
    };
    (0..12).map(chunk).collect()
}

#[test]
fn a_decoded_row_has_the_same_bits_alone_and_in_a_batch_that_shares_its_pages() {
    with_cuda_emulation(|| {
        for (heads, dtype, kernel) in variants() {
            let (pool, q) = (filled(heads, dtype, None), noise(3, 12, heads.q_size(), dtype));
            for window in [None, Some(100)] {
                let batched = attended_by(kernel, &pool, &q, &sharing(), window);
                for (row, chunk) in sharing().into_iter().enumerate() {
                    let q = q.narrow(0, row, 1).unwrap().contiguous().unwrap();
                    let chunk = PooledQueryChunk { rows: 0..1, ..chunk };
                    let alone = attended_by(kernel, &pool, &q, &[chunk], window);
                    assert_eq!(alone[0], batched[row], "{heads:?} {kernel:?}, row {row}");
                }
            }
        }
    });
}

#[test]
fn a_query_has_the_same_bits_alone_and_in_a_chunk() {
    with_cuda_emulation(|| {
        for (heads, dtype, kernel) in variants() {
            let (pool, q) = (filled(heads, dtype, None), noise(3, 16, heads.q_size(), dtype));
            let chunk = |rows: Range<usize>, position| PooledQueryChunk {
                rows,
                position,
                pages: vec![7, 3, 5],
                causal: true,
            };
            // Crosses a page.
            let position = 2 * PAGE_SIZE - 9;
            let together = attended_by(kernel, &pool, &q, &[chunk(0..16, position)], None);
            for (row, together) in together.iter().enumerate() {
                let q = q.narrow(0, row, 1).unwrap().contiguous().unwrap();
                let alone = [chunk(0..1, position + row)];
                let alone = attended_by(kernel, &pool, &q, &alone, None);
                assert_eq!(&alone[0], together, "{heads:?} {kernel:?}, row {row}");
            }
        }
    });
}

#[test]
fn slots_after_the_last_visible_token_may_hold_anything() {
    with_cuda_emulation(|| {
        let chunk = |rows: Range<usize>, position| PooledQueryChunk {
            rows,
            position,
            pages: (0..6).collect(),
            causal: true,
        };
        let chunks = [chunk(0..1, 299), chunk(1..2, 40)];
        for (heads, dtype, kernel) in variants() {
            let q = noise(3, 2, heads.q_size(), dtype);
            let after = |value| {
                let pool = filled(heads, dtype, Some((300, value)));
                attended_by(kernel, &pool, &q, &chunks, None)
            };
            assert_eq!(after(f32::NAN), after(0.0), "{heads:?} {kernel:?}");
        }
    });
}

#[test]
fn each_kernel_is_its_own_over_bf16_pages_and_one_over_f32_pages() {
    with_cuda_emulation(|| {
        for (dtype, same) in [(DType::F32, true), (DType::BF16, false)] {
            let (pool, q) = (filled(HEADS, dtype, None), noise(3, 12, HEADS.q_size(), dtype));
            let [tensor, cuda] = [DecodeKernel::TensorCores, DecodeKernel::CudaCores]
                .map(|kernel| attended_by(kernel, &pool, &q, &sharing(), None));
            // Only one rounds the weights to bf16.
            assert_eq!(tensor == cuda, same, "{dtype:?}");
        }
    });
}

/// An item of more pages than shared memory holds loads them as others are read.
#[test]
fn any_number_of_pages_per_work_item_gives_the_same_result() {
    with_cuda_emulation(|| {
        for heads in [HEADS, Heads { query: 16, kv: 2, dim: 128 }] {
            let (dtype, kernel) = (DType::BF16, DecodeKernel::TensorCores);
            let (pool, q) = (filled(heads, dtype, None), noise(3, 12, heads.q_size(), dtype));
            for window in [None, Some(200)] {
                let expected = attended_by(kernel, &pool, &q, &sharing(), window).concat();
                for split in [1, 3, 8] {
                    let plan =
                        PagedAttentionPlan::split(&sharing(), (heads, 12), &Device::Cpu, split);
                    let plan = plan.unwrap().with_kernel(kernel);
                    let found = outputs(&pool.forward(&q, &plan, window).unwrap()).concat();
                    for (found, expected) in found.iter().zip(&expected) {
                        // Weights and result are rounded to bf16.
                        let near = (found - expected).abs() <= (1.0 + expected.abs()) / 64.0;
                        assert!(near, "{heads:?}, {split} pages: {found}, not {expected}");
                    }
                }
            }
        }
    });
}

#[test]
fn a_page_of_nan_gives_nan() {
    with_cuda_emulation(|| {
        let chunk = PooledQueryChunk { rows: 0..1, position: 70, pages: vec![0, 9], causal: true };
        for (heads, dtype, kernel) in variants() {
            let pool = filled(heads, dtype, Some((9 * PAGE_SIZE, f32::NAN)));
            let q = noise(3, 1, heads.q_size(), dtype);
            let found = attended_by(kernel, &pool, &q, std::slice::from_ref(&chunk), None);
            let out = &found[0][..heads.q_size()];
            assert!(out.iter().all(|x| x.is_nan()), "{heads:?} {kernel:?}");
        }
    });
}

#[test]
fn rows_that_belong_to_no_chunk_are_0() {
    with_cuda_emulation(|| {
        let chunk = PooledQueryChunk { rows: 1..2, position: 3, pages: vec![0], causal: true };
        let found = attended(&pool(), &noise(3, 3, HEADS.q_size(), DType::F32), &[chunk]);
        assert!(found[0].iter().chain(&found[2]).all(|x| *x == 0.0));
        assert!(found[1].iter().any(|x| *x != 0.0));
    });
}

#[test]
fn pages_and_slots_out_of_range_are_rejected() {
    with_cuda_emulation(|| {
        let wide = Heads { dim: 129, ..HEADS };
        assert!(PagePool::new(wide, 1, DType::F32, &Device::Cpu).is_err());
        assert!(PagePool::new(HEADS, 1, DType::F64, &Device::Cpu).is_err());
        assert!(SlotMapping::new(&[(0, PAGE_SIZE)], &Device::Cpu).is_err());
        let pool = PagePool::new(HEADS, 2, DType::F32, &Device::Cpu).unwrap();
        assert!(pool.copy_page(0, 2).is_err());
        let (k, slots) = (noise(1, 1, HEADS.kv_size(), DType::F32), [(2, 0)]);
        assert!(pool.store(&k, &k, &SlotMapping::new(&slots, &Device::Cpu).unwrap()).is_err());
        let chunk = PooledQueryChunk { rows: 0..1, position: 0, pages: vec![2], causal: true };
        let plan = PagedAttentionPlan::new(&[chunk], HEADS, 1, &Device::Cpu).unwrap();
        let q = noise(3, 1, HEADS.q_size(), DType::F32);
        assert!(pool.forward(&q, &plan, None).is_err());
    });
}
