//! Dropout (Srivastava et al., 2014) with counter-based masks.
//!
//! Whether an element is kept depends on a hash of its row's key, the dropout site and its column. So the forward, its
//! recomputation and the backward agree on the mask without storing it.

use candle_core::Tensor;
use embodied_r_random::hash;
use multiversion::multiversion;

use crate::device::on_device;
use crate::error::{Result, check};
use crate::memory::{floats, tensor, update};
use crate::parallel;

const OP: &str = "dropout";

/// Which elements are dropped.
#[derive(Debug, Clone, Copy)]
pub struct DropoutMask<'a> {
    /// Key of each row: rows with the same key have the same mask.
    pub keys: &'a [u64],
    /// Id of the dropout site: sites of a model have different masks for the same keys.
    pub site: u64,
    /// Dropout probability, in [0, 1).
    pub p: f64,
}

/// The mask's parameters in the loops' types.
#[derive(Clone, Copy)]
struct Rule {
    site: u64,
    /// An element is dropped if its 32 bits are below this.
    threshold: u32,
    /// Scale of kept elements, `1 / (1 - p)`.
    scale: f32,
}

/// `x / (1 - p)` where kept, 0 elsewhere.
///
/// # Shapes
/// `x` and the result (rows, width).
///
/// # Errors
/// The number of keys differs from the rows, `p` is out of range, or the tensor is not contiguous `f32` on the CPU.
pub fn forward(x: &Tensor, mask: &DropoutMask<'_>) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let rule = mask.rule(rows)?;
    on_device!(x, lookup::dropout(x, &mask.on_device(rule), OP));
    let x = floats(x, OP)?;
    let mut y = vec![0.0; rows * width];
    parallel::rows(&mut y, width, |first, y| {
        for (i, y) in y.chunks_mut(width).enumerate() {
            let row = first + i;
            add_kept(&x[row * width..][..width], row_key(mask.keys[row], rule), rule, y);
        }
    });
    tensor(y, (rows, width))
}

/// Adds the gradient of the input, `dy / (1 - p)` where kept, to `dx`.
///
/// # Shapes
/// `dy` and `dx` (rows, width).
///
/// # Errors
/// As [`forward`].
pub fn backward(dy: &Tensor, mask: &DropoutMask<'_>, dx: &Tensor) -> Result<()> {
    let (rows, width) = dy.dims2()?;
    check(dx.dims() == [rows, width], OP, || "`dx` differs from `dy` in shape".into())?;
    let rule = mask.rule(rows)?;
    on_device!(dy, lookup::dropout_backward(dy, &mask.on_device(rule), dx, OP));
    let dy = floats(dy, OP)?;
    update(dx, OP, |dx| {
        parallel::rows(dx, width, |first, dx| {
            for (i, dx) in dx.chunks_mut(width).enumerate() {
                let row = first + i;
                add_kept(&dy[row * width..][..width], row_key(mask.keys[row], rule), rule, dx);
            }
        });
    })
}

impl DropoutMask<'_> {
    #[cfg(device)]
    fn on_device(&self, rule: Rule) -> crate::cuda::lookup::Drop {
        let keys = self.keys.iter().map(|key| row_key(*key, rule)).collect();
        crate::cuda::lookup::Drop { keys, threshold: rule.threshold, scale: rule.scale }
    }

    fn rule(&self, rows: usize) -> Result<Rule> {
        let keys = self.keys.len();
        check(keys == rows, OP, || format!("{keys} keys for {rows} rows"))?;
        check((0.0..1.0).contains(&self.p), OP, || {
            format!("the dropout probability {} is not in [0, 1)", self.p)
        })?;
        let threshold = (self.p * (1u64 << 32) as f64) as u32;
        Ok(Rule { site: self.site, threshold, scale: (1.0 / (1.0 - self.p)) as f32 })
    }
}

fn row_key(key: u64, rule: Rule) -> u64 {
    hash(key ^ hash(rule.site))
}

/// Adds the kept elements of `x` to `y`; one hash serves two columns.
#[multiversion(targets = "simd")]
fn add_kept(x: &[f32], key: u64, rule: Rule, y: &mut [f32]) {
    let factor = |bits: u32| if bits < rule.threshold { 0.0 } else { rule.scale };
    for (pair, (x, y)) in x.chunks(2).zip(y.chunks_mut(2)).enumerate() {
        let bits = hash(key.wrapping_add(pair as u64));
        y[0] += x[0] * factor(bits as u32);
        if let (Some(x), Some(y)) = (x.get(1), y.get_mut(1)) {
            *y += x * factor((bits >> 32) as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones(rows: usize, width: usize) -> Tensor {
        tensor(vec![1.0; rows * width], (rows, width)).unwrap()
    }

    fn rows(x: &Tensor) -> Vec<Vec<f32>> {
        x.to_vec2().unwrap()
    }

    #[test]
    fn masks_stay_bit_for_bit() {
        let mask = DropoutMask { keys: &[1, 2], site: 3, p: 0.5 };
        let y = rows(&forward(&ones(2, 9), &mask).unwrap());
        assert_eq!(y[0], [0.0, 0.0, 2.0, 2.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
        assert_eq!(y[1], [0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.0]);
    }

    #[test]
    fn the_share_that_is_dropped_is_p_and_the_mean_stays() {
        let keys: Vec<u64> = (0..200).collect();
        for p in [0.0, 0.05, 0.5] {
            let y = forward(&ones(200, 501), &DropoutMask { keys: &keys, site: 3, p }).unwrap();
            let y = rows(&y).concat();
            let n = y.len() as f64;
            let dropped = y.iter().filter(|y| **y == 0.0).count() as f64 / n;
            // Four standard errors.
            assert!(
                (dropped - p).abs() <= 4.0 * (p * (1.0 - p) / n).sqrt(),
                "{dropped}, expected {p}"
            );
            let kept = (1.0 / (1.0 - p)) as f32;
            assert!(y.iter().all(|y| *y == 0.0 || *y == kept));
        }
    }

    #[test]
    fn a_rows_mask_depends_on_its_key_and_the_site_alone() {
        let of = |keys: &[u64], site| {
            rows(&forward(&ones(keys.len(), 64), &DropoutMask { keys, site, p: 0.5 }).unwrap())
        };
        let (one, other) = (of(&[7, 8, 9], 1), of(&[9, 7], 1));
        assert_eq!((&one[0], &one[2]), (&other[1], &other[0]));
        assert_ne!(one[0], one[1]);
        assert_ne!(of(&[7], 1), of(&[7], 2));
    }

    #[test]
    fn the_backward_drops_what_the_forward_dropped_and_adds_the_rest() {
        let mask = DropoutMask { keys: &[1, 2], site: 0, p: 0.3 };
        let y = forward(&ones(2, 33), &mask).unwrap();
        let dx = ones(2, 33);
        backward(&ones(2, 33), &mask, &dx).unwrap();
        for (y, dx) in rows(&y).concat().iter().zip(rows(&dx).concat()) {
            assert_eq!(dx, 1.0 + y);
        }
    }

    #[test]
    fn a_number_of_keys_other_than_the_rows_is_rejected() {
        let message =
            forward(&ones(2, 4), &DropoutMask { keys: &[1], site: 0, p: 0.1 }).unwrap_err();
        assert!(message.to_string().contains("1 keys for 2 rows"), "{message}");
    }
}
