//! The tensors of an `mmproj` file.

use std::ops::Range;

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_kernels::weight::Weight;
use embodied_r_policy::{GgufFile, GgufTensor, WeightPlacement};

use crate::config::VisionConfig;
use crate::error::Result;
use crate::family::GgufFormat;
use crate::gguf_names::{GgufNames, PATCHES, POSITIONS};
use crate::layout::{self, TowerLayout, TowerPart};
use crate::linear::Linear;
use crate::tower_weights::TowerWeights;

/// A file's tensors.
pub(crate) struct MmprojWeights<'a> {
    file: &'a GgufFile,
    format: &'static GgufFormat,
    names: GgufNames,
    placement: WeightPlacement,
}

fn patches_shape(config: &VisionConfig) -> [usize; 4] {
    [config.hidden_size, config.in_channels, config.patch_size, config.patch_size]
}

impl<'a> MmprojWeights<'a> {
    pub(super) fn new(
        file: &'a GgufFile,
        format: &'static GgufFormat,
        layout: &TowerLayout,
        placement: WeightPlacement,
    ) -> Self {
        Self { file, format, names: GgufNames::new(layout), placement }
    }

    /// A tensor in f32.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let values = self.file.tensor(name, shape)?.dequantize()?;
        Ok(self.placement.vector(&values)?)
    }

    fn matrix(&self, stored: GgufTensor) -> Result<Weight> {
        match stored {
            GgufTensor::Matrix(matrix) => Ok(self.placement.blocks(&matrix)?),
            GgufTensor::Vector(tensor) => Ok(Weight::f32(&self.placement.vector(&tensor)?)?),
        }
    }

    /// The rows `rows` of a linear layer with `outputs` rows.
    fn layer(
        &self,
        name: &str,
        [outputs, inputs]: [usize; 2],
        rows: Range<usize>,
    ) -> Result<Linear> {
        let weight = format!("{name}.weight");
        let weight = self.matrix(self.file.rows(&weight, &[outputs, inputs], rows.clone())?)?;
        let bias = self.file.rows(&format!("{name}.bias"), &[outputs], rows)?.dequantize()?;
        Ok(Linear::new(weight, self.placement.vector(&bias)?))
    }
}

impl TowerWeights for MmprojWeights<'_> {
    /// The file has one matrix for each of a patch's two frames.
    fn patches(&self, config: &VisionConfig) -> Result<Weight> {
        let (hidden, side) = (config.hidden_size, config.patch_size);
        let shape = patches_shape(config);
        let frame = |name: &str| -> Result<Vec<f32>> {
            let matrix = self.file.tensor(name, &shape)?.dequantize()?;
            Ok(memory::floats(&matrix, "read the patches' weights")?.to_vec())
        };
        let frames = [frame(PATCHES[0])?, frame(PATCHES[1])?];
        // (hidden, channels, frames, side, side).
        let one = side * side;
        let channels = hidden * config.in_channels;
        let values = (0..channels).flat_map(|at| {
            frames.iter().flat_map(move |frame| frame[at * one..(at + 1) * one].iter().copied())
        });
        let weight = memory::tensor(values.collect(), (hidden, config.patch_elements()))?;
        Ok(Weight::f32(&self.placement.vector(&weight)?)?)
    }

    fn check(&self, part: &TowerPart, config: &VisionConfig) -> Result<()> {
        let check = |name: &str, shape: &[usize]| self.file.tensor(name, shape).map(|_| ());
        let layer = |name: &str, outputs: usize, inputs: usize| -> Result<()> {
            check(&format!("{name}.weight"), &[outputs, inputs])?;
            Ok(check(&format!("{name}.bias"), &[outputs])?)
        };
        match part {
            TowerPart::Patches => {
                PATCHES.iter().try_for_each(|name| check(name, &patches_shape(config)))?;
            }
            TowerPart::Vector(name, width) => check(&self.names.vector(name), &[*width])?,
            TowerPart::Positions(side) => check(POSITIONS, &[side * side, config.hidden_size])?,
            TowerPart::Linear(name, outputs, inputs) => {
                layer(&self.names.module(name), *outputs, *inputs)?;
            }
            TowerPart::Qkv(block, width) => {
                let fused = layout::qkv_name(*block);
                if self.format.has_fused_qkv {
                    return layer(&self.names.module(&fused), 3 * width, *width);
                }
                let names = self.names.split_qkv(&fused);
                names.iter().try_for_each(|name| layer(name, *width, *width))?;
            }
        }
        Ok(())
    }

    fn vector(&self, name: &str, width: usize) -> Result<Tensor> {
        self.values(&self.names.vector(name), &[width])
    }

    fn positions(&self, side: usize, hidden_size: usize) -> Result<Tensor> {
        self.values(POSITIONS, &[side * side, hidden_size])
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        self.layer(&self.names.module(name), [outputs, inputs], 0..outputs)
    }

    fn qkv(&self, name: &str, width: usize) -> Result<[Linear; 3]> {
        let [q, k, v] = match self.format.has_fused_qkv {
            true => {
                let fused = self.names.module(name);
                [0, 1, 2].map(|part| {
                    self.layer(&fused, [3 * width, width], part * width..(part + 1) * width)
                })
            }
            false => {
                let names = self.names.split_qkv(name);
                names.map(|name| self.layer(&name, [width, width], 0..width))
            }
        };
        Ok([q?, k?, v?])
    }
}
