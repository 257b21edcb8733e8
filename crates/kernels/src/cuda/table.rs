//! A table's rows on the device.

use candle_core::Tensor;

use super::{Dtype, create, lookup};
use crate::error::Result;
use crate::memory;

/// Rows of one width, held as those that came first. Its memory is asked for with the first of them.
pub(crate) struct Rows {
    /// (room, width); the first `used` are rows.
    numbers: Tensor,
    used: usize,
}

impl Rows {
    /// Room for `room` rows, as those of `like`.
    pub(crate) fn new(room: usize, like: &Tensor, op: &'static str) -> Result<Self> {
        let shape = (room.max(like.dims()[0]).max(1), like.dims()[1]);
        let numbers = create(like.device(), shape, Dtype::of(like, op)?, op, |_| Ok(()))?;
        Ok(Self { numbers, used: 0 })
    }

    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }

    pub(crate) fn count(&self) -> usize {
        self.used
    }

    /// Puts rows behind the others; where there is no room, in memory of twice the size.
    pub(crate) fn push(&mut self, rows: &Tensor, op: &'static str) -> Result<()> {
        let (new, width) = rows.dims2()?;
        let room = self.numbers.dims()[0];
        if self.used + new > room {
            let (shape, dtype) = ((2 * room).max(self.used + new), Dtype::of(&self.numbers, op)?);
            let numbers = create(self.numbers.device(), (shape, width), dtype, op, |_| Ok(()))?;
            memory::copy_rows(&numbers, 0, &self.numbers, 0..self.used)?;
            self.numbers = numbers;
        }
        memory::copy_rows(&self.numbers, self.used, rows, 0..new)?;
        self.used += new;
        Ok(())
    }

    /// The rows of these numbers, all of which there are.
    pub(crate) fn gather(&self, indices: &[usize], op: &'static str) -> Result<Tensor> {
        lookup::gather(&self.numbers, indices, None, op)
    }
}
