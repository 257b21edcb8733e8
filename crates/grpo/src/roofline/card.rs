//! Cards that are known by name.

use super::network::Link;
use super::rates::{self, Rates};

/// A GPU as its maker describes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Card {
    /// Its name, without its memory.
    pub name: &'static str,
    /// Its memory as it is sold, in gigabytes.
    pub sold_gb: f64,
    /// Bytes of memory that the driver shows.
    pub memory_bytes: usize,
    /// Multiplications and additions of dense bf16 matrices with sums in f32, a second.
    pub flops_per_s: f64,
    /// Bytes read a second from its memory.
    pub bytes_per_s: f64,
    /// How it reaches the others of its machine.
    pub link: Link,
    /// The shares that count.
    pub rates: Rates,
}

const MIB: usize = 1 << 20;

/// A card by its data sheet: memory in MiB as `nvidia-smi` shows it, TFLOP/s, GB/s.
const fn card(
    name: &'static str,
    (sold_gb, mib): (f64, usize),
    (tflops, gigabytes_per_s): (f64, f64),
    link: Link,
    rates: Rates,
) -> Card {
    Card {
        name,
        sold_gb,
        memory_bytes: mib * MIB,
        flops_per_s: tflops * 1e12,
        bytes_per_s: gigabytes_per_s * 1e9,
        link,
        rates,
    }
}

/// The cards that are known, from NVIDIA's data sheets; where a name or a memory size fits several, the first counts.
///
/// NVLink's figures are one direction's: half of the 400 GB/s of an A800, the 600 of an A100 and the 900 of Hopper. The
/// 4090 is a GeForce card, whose bf16 products with sums in f32 go at half rate.
pub const CARDS: [Card; 8] = [
    card("A800", (40.0, 40_960), (312.0, 1_555.0), Link::nvlink(200.0), rates::AMPERE),
    card("A800", (80.0, 81_920), (312.0, 2_039.0), Link::nvlink(200.0), rates::AMPERE),
    card("A100", (40.0, 40_960), (312.0, 1_555.0), Link::nvlink(300.0), rates::AMPERE),
    card("A100", (80.0, 81_920), (312.0, 2_039.0), Link::nvlink(300.0), rates::AMPERE),
    card("H100", (80.0, 81_559), (989.0, 3_350.0), Link::nvlink(450.0), rates::HOPPER),
    card("H200", (141.0, 143_771), (989.0, 4_800.0), Link::nvlink(450.0), rates::HOPPER),
    card("L40S", (48.0, 46_068), (362.0, 864.0), Link::pcie(32.0), rates::ADA),
    card("4090", (24.0, 24_564), (165.2, 1_008.0), Link::through_host(32.0), rates::ADA),
];

impl Card {
    /// The card of that name and memory (in gigabytes, as it is sold). Without a name the first with the memory, or with
    /// room for as much; without either the A800 of the paper. A known card with another memory is taken with that.
    pub fn find(name: Option<&str>, memory_gb: Option<f64>) -> Option<Self> {
        let named = |card: &&Self| name.is_none_or(|name| card.is_called(name));
        let known = || CARDS.iter().filter(named);
        let Some(gb) = memory_gb else {
            // The larger of two with the same name is no surprise to who has the smaller; so the smaller counts.
            return known().next().copied();
        };
        let exact = known().find(|card| card.sold_gb == gb);
        let like = exact.or_else(|| known().next())?;
        let bytes = (gb * (1u64 << 30) as f64) as usize;
        let memory_bytes = if exact.is_some() { like.memory_bytes } else { bytes };
        Some(Self { sold_gb: gb, memory_bytes, ..*like })
    }

    /// The card that the driver calls `name` (`NVIDIA H100 80GB HBM3`), with the memory that it shows.
    pub fn of_gpu(name: &str, memory_bytes: u64) -> Option<Self> {
        let called = name.to_ascii_lowercase();
        let words = || called.split(|c: char| !c.is_ascii_alphanumeric());
        let named = |card: &&Self| words().any(|word| word == card.name.to_ascii_lowercase());
        let apart = |card: &&Self| (card.memory_bytes as u64).abs_diff(memory_bytes);
        CARDS.iter().filter(named).min_by_key(apart).copied()
    }

    /// The names that are known, each once.
    pub fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = CARDS.iter().map(|card| card.name).collect();
        names.dedup();
        names
    }

    /// Whether it is meant by `name`: `RTX 4090`, `rtx4090`, `A100-40GB` and `a100` are understood.
    fn is_called(&self, name: &str) -> bool {
        let plain: String =
            name.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        let plain = ["nvidia", "geforce", "rtx"]
            .iter()
            .fold(plain.as_str(), |rest, brand| rest.strip_prefix(brand).unwrap_or(rest));
        let own = self.name.to_ascii_lowercase();
        plain == own || plain == format!("{own}{}gb", self.sold_gb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: Option<&str>, gb: Option<f64>) -> Option<(&'static str, usize)> {
        Card::find(name, gb).map(|card| (card.name, card.memory_bytes >> 20))
    }

    #[test]
    fn the_papers_card_counts_where_nothing_is_said() {
        assert_eq!(found(None, None), Some(("A800", 40_960)));
        assert_eq!(found(None, Some(40.0)), Some(("A800", 40_960)));
    }

    #[test]
    fn a_card_is_known_by_what_its_driver_calls_it() {
        let of = |name: &str, gib: u64| {
            Card::of_gpu(name, gib << 30).map(|card| (card.name, card.sold_gb))
        };
        assert_eq!(of("NVIDIA A100-SXM4-80GB", 79), Some(("A100", 80.0)));
        assert_eq!(of("NVIDIA A100-PCIE-40GB", 39), Some(("A100", 40.0)));
        assert_eq!(of("NVIDIA H100 80GB HBM3", 79), Some(("H100", 80.0)));
        assert_eq!(of("NVIDIA GeForce RTX 4090", 24), Some(("4090", 24.0)));
        assert_eq!(of("Tesla T4", 15), None);
    }

    #[test]
    fn a_memory_size_chooses_the_card() {
        let of = |gb| found(None, Some(gb)).map(|(name, _)| name);
        assert_eq!(
            [of(24.0), of(48.0), of(80.0), of(141.0)],
            [Some("4090"), Some("L40S"), Some("A800"), Some("H200")]
        );
    }

    #[test]
    fn names_are_understood_with_brand_and_memory() {
        for name in ["4090", "RTX 4090", "NVIDIA GeForce RTX 4090", "rtx4090"] {
            assert_eq!(found(Some(name), None), Some(("4090", 24_564)), "{name}");
        }
        assert_eq!(found(Some("A100-80GB"), None), Some(("A100", 81_920)));
        assert_eq!(found(Some("h100"), Some(80.0)), Some(("H100", 81_559)));
        assert_eq!(found(Some("MI300"), None), None);
    }

    #[test]
    fn a_known_card_with_another_memory_keeps_its_speed() {
        let card = Card::find(Some("H100"), Some(96.0)).unwrap();
        assert_eq!((card.memory_bytes >> 30, card.bytes_per_s), (96, 3_350e9));
    }
}
