//! Rows that come one after the other, and are looked up by their number.

use candle_core::Tensor;

use crate::error::{Result, check};
use crate::memory::floats;
use crate::{embedding, parallel};

const OP: &str = "table";

/// Rows of one width. Its memory is asked for once, and used as far as there are rows.
pub struct Table {
    numbers: Vec<f32>,
    width: usize,
    /// The rows, where those that came first are on a device.
    #[cfg(device)]
    device: Option<crate::cuda::table::Rows>,
    #[cfg(device)]
    room: usize,
}

impl Table {
    /// An empty one, with room for `rows` rows. They lie where the first that come are.
    pub fn new(rows: usize, width: usize) -> Self {
        Self {
            numbers: Vec::with_capacity(rows * width),
            width,
            #[cfg(device)]
            device: None,
            #[cfg(device)]
            room: rows,
        }
    }

    /// Takes out all rows; their memory stays.
    pub fn clear(&mut self) {
        self.numbers.clear();
        #[cfg(device)]
        if let Some(device) = &mut self.device {
            device.clear();
        }
    }

    /// Puts rows behind the others.
    ///
    /// # Shapes
    /// `rows` (any number, width).
    ///
    /// # Errors
    /// The width is another, or the tensor is not contiguous `f32` on the CPU.
    pub fn push(&mut self, rows: &Tensor) -> Result<()> {
        push_all(vec![(self, rows)])
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        #[cfg(device)]
        if let Some(device) = &self.device {
            return device.count();
        }
        self.numbers.len() / self.width.max(1)
    }

    /// The rows of these numbers (indices, width).
    ///
    /// # Errors
    /// There is no such row.
    pub fn gather(&self, indices: &[usize]) -> Result<Tensor> {
        #[cfg(device)]
        if let Some(device) = &self.device {
            embedding::check_indices(indices, device.count())?;
            return device.gather(indices, OP);
        }
        embedding::gathered(&self.numbers, self.width, indices)
    }
}

/// [`Table::push`] for several tables, on a device at once.
///
/// # Errors
/// As there.
pub fn push_all(pushes: Vec<(&mut Table, &Tensor)>) -> Result<()> {
    for (table, rows) in &pushes {
        let (width, wanted) = (rows.dims2()?.1, table.width);
        check(width == wanted, OP, || format!("rows of {width} numbers, not {wanted}"))?;
    }
    #[cfg(device)]
    if pushes.first().is_some_and(|(_, rows)| crate::cuda::on(rows)) {
        let mut on_device = Vec::with_capacity(pushes.len());
        for (table, rows) in pushes {
            let there = match table.device.take() {
                Some(there) => there,
                None => crate::cuda::table::Rows::new(table.room, rows, OP)?,
            };
            on_device.push((table.device.insert(there), rows));
        }
        return crate::cuda::table::push_all(on_device, OP);
    }
    for (table, rows) in pushes {
        let (rows, width) = (floats(rows, OP)?, table.width);
        parallel::extend(&mut table.numbers, rows.len() / width.max(1), width, |first, new| {
            new.copy_from_slice(&rows[first * width..first * width + new.len()]);
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tensor;

    fn rows(range: std::ops::Range<usize>, width: usize) -> Tensor {
        let numbers = (range.start * width..range.end * width).map(|i| i as f32).collect();
        tensor(numbers, (range.len(), width)).unwrap()
    }

    #[test]
    fn rows_are_found_by_the_order_in_which_they_came() {
        // The second push is copied in several tasks.
        let (width, pushes) = (3, [0..5, 5..60_000, 60_000..60_001]);
        let mut table = Table::new(10, width);
        for _ in 0..2 {
            table.clear();
            assert!(table.gather(&[0]).is_err());
            pushes.iter().for_each(|push| table.push(&rows(push.clone(), width)).unwrap());
            let found = table.gather(&[60_000, 3, 0, 59_999, 3]).unwrap();
            let found: Vec<f32> = found.to_vec2().unwrap().into_iter().map(|row| row[1]).collect();
            assert_eq!(found, [180_001.0, 10.0, 1.0, 179_998.0, 10.0]);
        }
        assert!(table.gather(&[60_001]).is_err());
        assert!(table.push(&rows(0..2, 4)).is_err());
    }
}
