//! Learned positions, interpolated for the patches of an image.

use candle_core::Tensor;
use embodied_r_kernels::{Result, embedding, memory};

use crate::family::Taps;

impl Taps {
    /// Adds to each row of `x` its weighted sum of entries.
    ///
    /// # Shapes
    /// `x` (rows, width), `table` (entries, width).
    pub(crate) fn add_to(&self, x: &Tensor, table: &Tensor) -> Result<()> {
        let mut sum: Option<Tensor> = None;
        for (entries, weights) in self.entries.iter().zip(&self.weights) {
            let corner = embedding::gather(table, entries)?;
            memory::scale_rows(&corner, weights)?;
            match &sum {
                Some(sum) => memory::add(sum, &corner)?,
                None => sum = Some(corner),
            }
        }
        match sum {
            Some(sum) => memory::add(x, &sum),
            None => Ok(()),
        }
    }

    /// Adds the gradient of the table to `d_table`, from that of the rows.
    ///
    /// # Shapes
    /// `dx` (rows, width), `d_table` (entries, width).
    pub(crate) fn add_gradient(&self, dx: &Tensor, d_table: &Tensor) -> Result<()> {
        for (entries, weights) in self.entries.iter().zip(&self.weights) {
            let corner = memory::copy(dx)?;
            memory::scale_rows(&corner, weights)?;
            embedding::scatter_add(d_table, entries, &corner)?;
        }
        Ok(())
    }
}
