//! The tensors of a trainable tower by module: weights, or gradients, of which frozen tensors have none.

use candle_core::Tensor;
use embodied_r_kernels::memory;

use super::tensors::{A, B};
use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::layout::{PATCHES, POSITIONS};
use crate::tower::{ModuleSource, Modules};

/// A linear layer.
pub(super) struct Linear<T> {
    /// (outputs, inputs).
    pub(super) weight: T,
    /// (outputs).
    pub(super) bias: T,
    /// The adapter's `A` (rank, inputs) and `B` (outputs, rank), and the site of its dropout.
    pub(super) low_rank: Option<([T; 2], u64)>,
}

/// All modules of a tower.
pub(super) struct TowerModules<T> {
    /// The patch embedding (hidden, elements per patch).
    pub(super) patches: T,
    pub(super) others: Modules<Linear<T>, T>,
}

/// A tensor with views that share its memory.
pub(super) trait View: Clone {
    /// `count` rows, or elements of a vector.
    fn rows(&self, first: usize, count: usize) -> Result<Self>;

    /// All elements as a matrix.
    fn matrix(&self, rows: usize, columns: usize) -> Result<Self>;
}

impl View for Tensor {
    fn rows(&self, first: usize, count: usize) -> Result<Self> {
        Ok(self.narrow(0, first, count).map_err(embodied_r_kernels::Error::from)?)
    }

    fn matrix(&self, rows: usize, columns: usize) -> Result<Self> {
        Ok(memory::reshape(self, (rows, columns))?)
    }
}

impl View for Option<Tensor> {
    fn rows(&self, first: usize, count: usize) -> Result<Self> {
        self.as_ref().map(|tensor| tensor.rows(first, count)).transpose()
    }

    fn matrix(&self, rows: usize, columns: usize) -> Result<Self> {
        self.as_ref().map(|tensor| tensor.matrix(rows, columns)).transpose()
    }
}

/// Tensors by their names within the tower, and the dropout sites of the linear layers with an adapter.
struct Named<S, G> {
    site: S,
    get: G,
}

impl<T: View, S: Fn(&str) -> Option<u64>, G: Fn(&str) -> Result<T>> Named<S, G> {
    fn layer(&self, name: &str) -> Result<Linear<T>> {
        let part = |part: &str| (self.get)(&format!("{name}.{part}"));
        let low_rank = |site| Ok::<_, Error>(([part(A)?, part(B)?], site));
        let low_rank = (self.site)(name).map(low_rank).transpose()?;
        Ok(Linear { weight: part("weight")?, bias: part("bias")?, low_rank })
    }
}

impl<T: View, S: Fn(&str) -> Option<u64>, G: Fn(&str) -> Result<T>>
    ModuleSource<Linear<T>, T, Error> for Named<S, G>
{
    fn vector(&self, name: &str, _width: usize) -> Result<T> {
        (self.get)(name)
    }

    fn positions(&self, _side: usize, _hidden_size: usize) -> Result<T> {
        (self.get)(POSITIONS)
    }

    fn linear(&self, name: &str, _outputs: usize, _inputs: usize) -> Result<Linear<T>> {
        self.layer(name)
    }

    fn qkv(&self, name: &str, hidden: usize) -> Result<[Linear<T>; 3]> {
        let fused = self.layer(name)?;
        let part = |index: usize| -> Result<Linear<T>> {
            let rows = |of: &T| of.rows(index * hidden, hidden);
            // The parts share their input, and so its mask.
            let adapter =
                |([a, b], site): &([T; 2], u64)| Ok::<_, Error>(([a.clone(), rows(b)?], *site));
            let low_rank = fused.low_rank.as_ref().map(adapter).transpose()?;
            Ok(Linear { weight: rows(&fused.weight)?, bias: rows(&fused.bias)?, low_rank })
        };
        Ok([part(0)?, part(1)?, part(2)?])
    }
}

impl<T: View> TowerModules<T> {
    /// Looks each tensor up by its name within the tower. `site` is that of the dropout of linear layers with an adapter.
    pub(super) fn new(
        config: &VisionConfig,
        site: impl Fn(&str) -> Option<u64>,
        get: impl Fn(&str) -> Result<T>,
    ) -> Result<Self> {
        let patches = get(PATCHES)?.matrix(config.hidden_size, config.patch_elements())?;
        Ok(Self { patches, others: Modules::new(config, &Named { site, get })? })
    }
}
