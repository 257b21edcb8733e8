//! Where objects stand at the start of a demonstration.

use embodied_r_random::Rng;

use super::TABLE_CENTRE;
use super::objects::{Body, Kind};

/// Where the middle of an object can be, along x and y in metres.
pub(crate) const REGION: [(f64, f64); 2] = [(0.09, 0.42), (-0.3, 0.3)];
/// Least distance between low objects, and between others, so that the hand has room at its sides.
const GAP_M: f64 = 0.035;
const GAP_OF_TALL_M: f64 = 0.07;
/// Height of what is tall.
const TALL_M: f64 = 0.055;
/// Attempts to place an object.
const ATTEMPTS: usize = 400;
/// Objects that belong to no task of which they are no part.
const BYSTANDERS: [Kind; 4] = [Kind::OrangeBall, Kind::PurpleCan, Kind::YellowCup, Kind::Tomato];

/// A disc of the table that is in use.
struct Taken {
    centre: [f64; 2],
    radius_m: f64,
    is_tall: bool,
}

/// Places objects on the table, none of which touch.
pub(crate) struct Layout<'a> {
    pub(crate) bodies: Vec<Body>,
    taken: Vec<Taken>,
    rng: &'a mut Rng,
}

impl<'a> Layout<'a> {
    pub(crate) fn new(rng: &'a mut Rng) -> Self {
        Self { bodies: Vec::new(), taken: Vec::new(), rng }
    }

    /// Places an object rotated by up to `yaw` radians to either side, and returns its index; `None` if there is no room.
    pub(crate) fn place(&mut self, kind: Kind, yaw: f64) -> Option<usize> {
        let [x, y] = self.free_spot(kind)?;
        let yaw = self.rng.between(-yaw, yaw);
        Some(self.put(Body::new(kind, [x, y, TABLE_CENTRE[2]], yaw)))
    }

    /// Adds an object at a place that is known to be free.
    pub(crate) fn put(&mut self, body: Body) -> usize {
        let [x, y, _] = body.base();
        self.reserve([x, y], body.kind);
        self.bodies.push(body);
        self.bodies.len() - 1
    }

    /// Keeps others from where an object of this class will be.
    pub(crate) fn reserve(&mut self, centre: [f64; 2], kind: Kind) {
        let is_tall = kind.height_m() > TALL_M;
        self.taken.push(Taken { centre, radius_m: kind.radius_m(), is_tall });
    }

    /// A place for an object of this class.
    pub(crate) fn free_spot(&mut self, kind: Kind) -> Option<[f64; 2]> {
        (0..ATTEMPTS).find_map(|_| {
            let spot = REGION.map(|(low, high)| self.rng.between(low, high));
            self.is_free(spot, kind).then_some(spot)
        })
    }

    /// Whether there is room for an object of this class.
    pub(crate) fn is_free(&self, spot: [f64; 2], kind: Kind) -> bool {
        let inside = spot.iter().zip(REGION).all(|(at, (low, high))| (low..=high).contains(at));
        let is_tall = kind.height_m() > TALL_M;
        let clear = |taken: &Taken| {
            let gap = if is_tall || taken.is_tall { GAP_OF_TALL_M } else { GAP_M };
            let apart = (spot[0] - taken.centre[0]).hypot(spot[1] - taken.centre[1]);
            apart >= kind.radius_m() + taken.radius_m + gap
        };
        inside && self.taken.iter().all(clear)
    }

    /// Adds up to two objects that the task is not about, where there is room.
    pub(crate) fn add_bystanders(&mut self) {
        let wanted = 1 + self.rng.below(2);
        for kind in self.rng.sample(&BYSTANDERS, wanted) {
            if self.bodies.iter().all(|body| body.kind != kind) {
                self.place(kind, std::f64::consts::PI);
            }
        }
    }

    /// The random numbers.
    pub(crate) fn rng(&mut self) -> &mut Rng {
        self.rng
    }
}
