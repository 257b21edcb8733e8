//! The linear layers of encoders, for adapters.

/// A linear layer of an encoder: one of each block in a list, or a single one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderModule {
    list: Option<String>,
    name: String,
}

impl EncoderModule {
    /// That of the layer with this canonical name: of `visual.blocks.3.attn.qkv` and of `visual.blocks.4.attn.qkv`, it is
    /// `attn.qkv` in the list `visual.blocks`.
    #[must_use]
    pub fn of_layer(layer: &str) -> Self {
        let dots = layer.match_indices('.').map(|(index, _)| index);
        for (from, to) in dots.clone().zip(dots.skip(1)) {
            if layer[from + 1..to].parse::<usize>().is_ok() {
                let (list, name) = (layer[..from].to_owned(), layer[to + 1..].to_owned());
                return Self { list: Some(list), name };
            }
        }
        Self { list: None, name: layer.to_owned() }
    }

    /// The list that it is in; `None` for a single layer.
    #[must_use]
    pub fn list(&self) -> Option<&str> {
        self.list.as_deref()
    }

    /// Its name within a block of the list; the layer's, if it is in none.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Whether a layer with a matrix is linear: embeddings, whose weights are matrices, too, are so called.
pub(super) fn is_linear(layer: &str) -> bool {
    !layer.rsplit('.').next().is_some_and(|name| name.contains("embed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_of_a_list_have_the_same_modules() {
        let of = |layer: &str| EncoderModule::of_layer(layer);
        let module = of("visual.blocks.0.attn.qkv");
        assert_eq!(module, of("visual.blocks.31.attn.qkv"));
        assert_eq!((module.list(), module.name()), (Some("visual.blocks"), "attn.qkv"));
        let deepstack = of("visual.deepstack_merger_list.2.linear_fc2");
        assert_eq!(deepstack.list(), Some("visual.deepstack_merger_list"));
        assert_eq!(deepstack.name(), "linear_fc2");
        // A number at the end is not that of a block.
        let single = of("visual.merger.mlp.2");
        assert_eq!((single.list(), single.name()), (None, "visual.merger.mlp.2"));
        assert_ne!(single, of("visual.merger.mlp.0"));
    }
}
