//! Procedural textures: patches of random brightness at two scales, independent of the viewpoint.

use embodied_r_random::{GAMMA, Rng, mix};

/// Edge of the large patches in metres.
const LARGE_M: f64 = 0.5;
/// Edge of the small patches in metres.
const SMALL_M: f64 = 0.14;

/// A texture of one surface.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Texture {
    seed: u64,
    colour: [f64; 3],
    /// Brightness amplitude of large and small patches.
    large: f64,
    small: f64,
    /// Hue amplitude of large patches.
    hue: f64,
}

impl Texture {
    /// A high-contrast texture around a base colour.
    pub(crate) fn new(keys: &[u64], colour: [u8; 3]) -> Self {
        let seed = Rng::new(keys).next_u64();
        Self { seed, colour: colour.map(f64::from), large: 0.3, small: 0.45, hue: 0.07 }
    }

    /// The texture with less contrast, so that its colour stays recognizable.
    pub(crate) fn smooth(self) -> Self {
        Self { large: 0.12, small: 0.3, hue: 0.0, ..self }
    }

    /// The texture with patches that are barely visible.
    pub(crate) fn faint(self) -> Self {
        Self { large: 0.05, small: 0.08, hue: 0.0, ..self }
    }

    /// The colour at a point of the surface, in metres along it, under some light.
    pub(crate) fn colour(&self, u: f64, v: f64, light: f64) -> [u8; 3] {
        let large = self.patch(u, v, LARGE_M, 1);
        let small = self.patch(u + 0.05, v + 0.03, SMALL_M, 2);
        // A few small patches stand out like marks on a wall.
        let mark = match small & 7 {
            0 => -1.0,
            1 => 0.6,
            _ => 0.12 * unit(small),
        };
        let bright = 1.0 + self.large * unit(large) + self.small * mark;
        let mut rgb = [0; 3];
        for (channel, (out, base)) in rgb.iter_mut().zip(self.colour).enumerate() {
            let hue = 1.0 + self.hue * unit(large.rotate_left(16 * (channel as u32 + 1)));
            *out = (base * bright * hue * light).clamp(0.0, 255.0) as u8;
        }
        rgb
    }

    /// A random number of the patch that contains the point.
    fn patch(&self, u: f64, v: f64, edge_m: f64, layer: u64) -> u64 {
        let cell = |at: f64| (at / edge_m).floor() as i64 as u64;
        mix(self.seed
            ^ cell(u).wrapping_mul(GAMMA)
            ^ cell(v).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            ^ (layer << 56))
    }
}

/// A number in [-1, 1) from the upper bits.
fn unit(bits: u64) -> f64 {
    (bits >> 40) as f64 / (1_u64 << 23) as f64 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_patches_differ_and_a_patch_is_uniform() {
        let texture = Texture::new(&[1], [200, 200, 200]);
        let at = |u: f64| texture.colour(u, 0.2, 1.0);
        assert_eq!(at(0.105), at(0.185));
        let colours: std::collections::HashSet<_> =
            (0..40).map(|i| at(f64::from(i) * SMALL_M)).collect();
        assert!(colours.len() > 20);
    }

    #[test]
    fn the_mean_colour_is_close_to_the_base_colour() {
        let texture = Texture::new(&[3], [200, 100, 50]).smooth();
        let mut sum = [0.0; 3];
        for i in 0..4000 {
            let at = f64::from(i);
            let colour = texture.colour(at * 0.37, at * 0.13, 1.0);
            (0..3).for_each(|c| sum[c] += f64::from(colour[c]) / 4000.0);
        }
        for (mean, base) in sum.iter().zip([200.0, 100.0, 50.0]) {
            assert!((mean / base - 1.0).abs() < 0.15, "{sum:?}");
        }
    }
}
