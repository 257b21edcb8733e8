//! Memory of a vision-language model's encoder and its images.

use super::Workload;
use super::layout::MemoryKind;
use super::vision::{BF16, ImageBytes, VisionLoad};

/// Memory of the vision encoder and the images of a rank's steps, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisionMemory {
    /// The encoder's weights, and those of a frozen copy if a reference has other ones.
    pub weights: usize,
    /// Gradients, master weights and moments of what is trained.
    pub training: usize,
    /// Image embeddings: those of a step with their gradients, and those kept for later steps.
    pub embeddings: usize,
    /// Patches of the images of a step and, if the encoder is trained, of the next.
    pub patches: usize,
    /// Activations saved for the backward pass.
    pub activations: usize,
    /// Workspace of a pass over a batch of images.
    pub workspace: usize,
    /// Where embeddings and patches are on the host, and the rest is on a device: their bytes, which then are not in
    /// the other fields.
    pub host: usize,
}

impl VisionMemory {
    /// That of a model that does not see.
    pub const NONE: Self = Self {
        weights: 0,
        training: 0,
        embeddings: 0,
        patches: 0,
        activations: 0,
        workspace: 0,
        host: 0,
    };

    /// Weights, gradients and optimizer state.
    pub(super) fn state(&self) -> usize {
        self.weights + self.training
    }

    /// Memory resident throughout a step.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.weights + self.training + self.embeddings + self.patches + self.activations
    }

    /// Peak memory of the decoder's `update` with the encoder's workspace. A frozen encoder's pass is over when the
    /// update begins; a trained one's backward follows the decoder's, whose memory the allocator may still hold.
    pub(super) fn beside(&self, update: usize) -> usize {
        match self.training {
            0 => update.max(self.workspace),
            _ => update + self.workspace,
        }
    }
}

impl VisionLoad {
    /// Images of the rank's steps in `workload`.
    pub(crate) fn images_of_step(&self, workload: &Workload) -> usize {
        workload.prompts * self.images
    }

    /// Those of a backward pass: each optimizer step has its own.
    fn images_of_backward(&self, workload: &Workload) -> usize {
        self.images_of_step(workload).div_ceil(workload.mini_batches.max(1))
    }

    /// Bytes of a block's activations for a backward pass, besides its input.
    pub(super) fn block_bytes(&self, workload: &Workload) -> usize {
        self.images_of_backward(workload) * self.pass_bytes(workload).image.block
    }

    /// Those of all trained blocks.
    pub(super) fn blocks_bytes(&self, workload: &Workload) -> usize {
        self.blocks * self.block_bytes(workload)
    }

    /// The part of the trained blocks that a backward pass recomputes if it saves `activation_bytes`.
    pub(crate) fn recomputed_share(&self, workload: &Workload, activation_bytes: usize) -> f64 {
        match self.blocks_bytes(workload) {
            0 => 0.0,
            all => 1.0 - activation_bytes.min(all) as f64 / all as f64,
        }
    }

    fn pass_bytes(&self, workload: &Workload) -> ImageBytes {
        let [bf16, f32] = self.pass;
        if workload.layout.activation == BF16 { bf16 } else { f32 }
    }

    /// The memory of a rank of `workload`, whose passes may save `activation_bytes` of the encoder's activations.
    pub(super) fn memory(&self, workload: &Workload, activation_bytes: usize) -> VisionMemory {
        let (layout, images) = (&workload.layout, self.images_of_step(workload));
        let ImageBytes { image, most_workspace } = self.pass_bytes(workload);
        let weights = layout.weight_bytes(self.parameters);
        let reference = layout.weight_bytes(self.reference);
        let (step, patches) = (images * self.embeddings, images * image.patches);
        let frozen = step.max(self.cache);
        let workspace = (images * image.workspace).min(most_workspace);
        let memory = match self.trainable {
            0 => VisionMemory {
                weights,
                embeddings: frozen,
                patches,
                workspace,
                ..VisionMemory::NONE
            },
            trainable => {
                let has_reference = workload.reference > 0;
                let trained = self.images_of_backward(workload);
                let saved = activation_bytes.min(self.blocks_bytes(workload));
                VisionMemory {
                    weights: weights + if has_reference { reference } else { 0 },
                    training: trainable * layout.gradient + workload.optimizer_bytes(trainable),
                    embeddings: 2 * step + if has_reference { frozen } else { 0 },
                    patches: 2 * patches,
                    activations: trained * image.inputs + saved,
                    workspace,
                    host: 0,
                }
            }
        };
        match layout.memory {
            MemoryKind::Host => memory,
            // Those of a step, and their gradients, are in the decoder's inputs.
            MemoryKind::Device => VisionMemory {
                embeddings: 0,
                patches: 0,
                host: memory.embeddings + memory.patches,
                ..memory
            },
        }
    }
}
