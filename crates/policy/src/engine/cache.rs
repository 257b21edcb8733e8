//! Keys and values of tokens that have been computed.

use embodied_r_kernels::decode_attention::Cached;

/// One layer's keys and values, token after token (tokens, kv heads · dim).
#[derive(Default, Clone)]
pub(super) struct LayerCache {
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
}

impl LayerCache {
    pub(super) fn view(&self) -> Cached<'_> {
        Cached { k: &self.k, v: &self.v }
    }
}

/// All layers' keys and values of one run of tokens.
#[derive(Default)]
pub(super) struct Cache {
    pub(super) layers: Vec<LayerCache>,
}

impl Cache {
    /// No tokens yet.
    pub(super) fn empty(layers: usize) -> Self {
        Self { layers: vec![LayerCache::default(); layers] }
    }

    /// Tokens in the cache, where one has `width` numbers a layer.
    pub(super) fn tokens(&self, width: usize) -> usize {
        self.layers.first().map_or(0, |layer| layer.k.len() / width)
    }
}
