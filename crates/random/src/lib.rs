//! Reproducible random numbers: a seed gives the same ones on every machine, and in every version of the program.
//!
//! - [`Rng`] draws one number after the other.
//! - [`Stream`] is counter-based: a number depends on its coordinates alone, not on earlier draws, so that results
//!   depend neither on the order of execution nor on resuming. [`stream`] derives a seed from words such as (seed,
//!   step, question), and [`permutation`] an order from a seed.
//! - [`mix`] and [`hash`] are the functions underneath; [`normal`] makes a normal number of two uniform ones.
//!
//! All are built on SplitMix64 (Steele, Lea and Flood, 2014).
//!
//! ```
//! use embodied_r_random::{Rng, Stream, stream};
//!
//! let mut rng = Rng::seeded(0);
//! assert_eq!(rng.next_u64(), 0xe220_a839_7b1d_cdaf);
//! let of_request = Stream::new(stream(&[7, 3]), 0);
//! assert_eq!(of_request.uniform(5), of_request.uniform(5));
//! ```

mod bits;
mod counter;
mod rng;

pub use bits::{GAMMA, hash, mix, normal};
pub use counter::{Stream, permutation, stream};
pub use rng::Rng;
