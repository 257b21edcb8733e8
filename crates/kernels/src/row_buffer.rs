//! Append-only buffers of rows, looked up by index.

use candle_core::Tensor;

use crate::error::{Result, check};
use crate::memory::floats;
use crate::{embedding, parallel};

const OP: &str = "row_buffer";

/// A growing buffer of rows of one width. Clearing it keeps the allocation.
pub struct RowBuffer {
    data: Vec<f32>,
    width: usize,
    /// The rows, if the first ones pushed are on a device.
    #[cfg(device)]
    device: Option<crate::cuda::row_buffer::DeviceRows>,
    #[cfg(device)]
    capacity: usize,
}

impl RowBuffer {
    /// An empty buffer with capacity for `rows` rows, allocated on the device of the first rows pushed.
    pub fn new(rows: usize, width: usize) -> Self {
        Self {
            data: Vec::with_capacity(rows * width),
            width,
            #[cfg(device)]
            device: None,
            #[cfg(device)]
            capacity: rows,
        }
    }

    /// Removes all rows; keeps the allocation.
    pub fn clear(&mut self) {
        self.data.clear();
        #[cfg(device)]
        if let Some(device) = &mut self.device {
            device.clear();
        }
    }

    /// Appends rows.
    ///
    /// # Shapes
    /// `rows` (any number, width).
    ///
    /// # Errors
    /// The width differs, or the tensor is not contiguous `f32` on the CPU.
    pub fn push(&mut self, rows: &Tensor) -> Result<()> {
        push_all(vec![(self, rows)])
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        #[cfg(device)]
        if let Some(device) = &self.device {
            return device.count();
        }
        self.data.len() / self.width.max(1)
    }

    /// The rows `indices` (indices, width).
    ///
    /// # Errors
    /// An index is out of range.
    pub fn gather(&self, indices: &[usize]) -> Result<Tensor> {
        #[cfg(device)]
        if let Some(device) = &self.device {
            embedding::check_indices(indices, device.count())?;
            return device.gather(indices, OP);
        }
        embedding::gathered(&self.data, self.width, indices)
    }
}

/// [`RowBuffer::push`] for several buffers; one kernel launch on a device.
///
/// # Errors
/// As [`RowBuffer::push`].
pub fn push_all(pushes: Vec<(&mut RowBuffer, &Tensor)>) -> Result<()> {
    for (buffer, rows) in &pushes {
        let (width, expected) = (rows.dims2()?.1, buffer.width);
        check(width == expected, OP, || {
            format!("rows of width {width}, but the buffer has width {expected}")
        })?;
    }
    #[cfg(device)]
    if pushes.first().is_some_and(|(_, rows)| crate::cuda::on(rows)) {
        let mut on_device = Vec::with_capacity(pushes.len());
        for (buffer, rows) in pushes {
            let device_rows = match buffer.device.take() {
                Some(device_rows) => device_rows,
                None => crate::cuda::row_buffer::DeviceRows::new(buffer.capacity, rows, OP)?,
            };
            on_device.push((buffer.device.insert(device_rows), rows));
        }
        return crate::cuda::row_buffer::push_all(on_device, OP);
    }
    for (buffer, rows) in pushes {
        let rows = floats(rows, OP)?;
        parallel::extend(&mut buffer.data, rows.len(), |first, new| {
            new.write_copy_of_slice(&rows[first..first + new.len()])
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tensor;

    fn rows(range: std::ops::Range<usize>, width: usize) -> Tensor {
        let data = (range.start * width..range.end * width).map(|i| i as f32).collect();
        tensor(data, (range.len(), width)).unwrap()
    }

    #[test]
    fn rows_are_indexed_in_push_order() {
        // The second push is copied in several tasks.
        let (width, pushes) = (3, [0..5, 5..60_000, 60_000..60_001]);
        let mut buffer = RowBuffer::new(10, width);
        for _ in 0..2 {
            buffer.clear();
            assert!(buffer.gather(&[0]).is_err());
            pushes.iter().for_each(|push| buffer.push(&rows(push.clone(), width)).unwrap());
            let found = buffer.gather(&[60_000, 3, 0, 59_999, 3]).unwrap();
            let found: Vec<f32> = found.to_vec2().unwrap().into_iter().map(|row| row[1]).collect();
            assert_eq!(found, [180_001.0, 10.0, 1.0, 179_998.0, 10.0]);
        }
        assert!(buffer.gather(&[60_001]).is_err());
        assert!(buffer.push(&rows(0..2, 4)).is_err());
    }
}
