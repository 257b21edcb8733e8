//! Triangles of the objects, the gripper and the arm.

use std::f32::consts::TAU;

/// A point or direction in single precision.
pub(super) type Point = [f32; 3];

/// Red, green and blue.
pub(super) type Colour = [u8; 3];

/// A triangle with a normal at each vertex.
#[derive(Debug, Clone, Copy)]
pub(super) struct Triangle {
    pub(super) vertices: [Point; 3],
    pub(super) normals: [Point; 3],
    pub(super) colour: Colour,
}

/// The triangles of a rigid thing in its own frame.
#[derive(Debug, Clone, Default)]
pub(super) struct Mesh {
    pub(super) triangles: Vec<Triangle>,
}

/// Sides of a cylinder.
const SIDES: usize = 18;

impl Mesh {
    /// Adds a quadrilateral with the corners in order and one normal.
    fn quad(&mut self, corners: [Point; 4], normal: Point, colour: Colour) {
        let [a, b, c, d] = corners;
        for vertices in [[a, b, c], [a, c, d]] {
            self.triangles.push(Triangle { vertices, normals: [normal; 3], colour });
        }
    }

    /// Adds a box around `centre` with these half edges.
    pub(super) fn cuboid(&mut self, centre: Point, half: Point, colour: Colour) {
        for axis in 0..3 {
            let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
            for sign in [-1.0_f32, 1.0] {
                let corner = |a: f32, b: f32| {
                    let mut corner = centre;
                    corner[axis] += sign * half[axis];
                    corner[u] += a * half[u];
                    corner[v] += b * half[v];
                    corner
                };
                let corners =
                    [corner(-1.0, -1.0), corner(1.0, -1.0), corner(1.0, 1.0), corner(-1.0, 1.0)];
                let mut normal = [0.0; 3];
                normal[axis] = sign;
                self.quad(corners, normal, colour);
            }
        }
    }

    /// Adds the side of a truncated cone around `centre` from radius `low` at height `bottom` to `high` at `top`.
    /// `facing` is 1 for its outside and -1 for its inside.
    fn wall(
        &mut self,
        centre: [f32; 2],
        radii: [f32; 2],
        heights: [f32; 2],
        facing: f32,
        colour: Colour,
    ) {
        let slope = (radii[0] - radii[1]) / (heights[1] - heights[0]).max(1e-6);
        let ring = |side: usize, level: usize| {
            let (sin, cos) = (side as f32 / SIDES as f32 * TAU).sin_cos();
            let vertex =
                [centre[0] + radii[level] * cos, centre[1] + radii[level] * sin, heights[level]];
            let length = (1.0 + slope * slope).sqrt() * facing;
            (vertex, [cos / length, sin / length, slope / length])
        };
        for side in 0..SIDES {
            let corners = [ring(side, 0), ring(side + 1, 0), ring(side + 1, 1), ring(side, 1)];
            for [a, b, c] in [[0, 1, 2], [0, 2, 3]] {
                let [a, b, c] = [corners[a], corners[b], corners[c]];
                self.triangles.push(Triangle {
                    vertices: [a.0, b.0, c.0],
                    normals: [a.1, b.1, c.1],
                    colour,
                });
            }
        }
    }

    /// Adds a horizontal ring between two radii. `facing` is 1 for up and -1 for down.
    fn ring(
        &mut self,
        centre: [f32; 2],
        radii: [f32; 2],
        height: f32,
        facing: f32,
        colour: Colour,
    ) {
        let vertex = |side: usize, radius: f32| {
            let (sin, cos) = (side as f32 / SIDES as f32 * TAU).sin_cos();
            [centre[0] + radius * cos, centre[1] + radius * sin, height]
        };
        for side in 0..SIDES {
            let corners = [
                vertex(side, radii[0]),
                vertex(side, radii[1]),
                vertex(side + 1, radii[1]),
                vertex(side + 1, radii[0]),
            ];
            self.quad(corners, [0.0, 0.0, facing], colour);
        }
    }

    /// Adds a closed truncated cone around the vertical through `centre`, whose third coordinate is its lower end.
    pub(super) fn cylinder(&mut self, centre: Point, radii: [f32; 2], height: f32, colour: Colour) {
        let [x, y, bottom] = centre;
        let top = bottom + height;
        self.wall([x, y], radii, [bottom, top], 1.0, colour);
        self.ring([x, y], [0.0, radii[1]], top, 1.0, colour);
        self.ring([x, y], [0.0, radii[0]], bottom, -1.0, colour);
    }

    /// Adds an open vessel around the z axis with a wall of `thickness`.
    pub(super) fn vessel(
        &mut self,
        radii: [f32; 2],
        height: f32,
        thickness: f32,
        colours: [Colour; 2],
    ) {
        let [outside, inside] = colours;
        let inner = radii.map(|radius| radius - thickness);
        self.wall([0.0; 2], radii, [0.0, height], 1.0, outside);
        self.wall([0.0; 2], inner, [thickness, height], -1.0, inside);
        self.ring([0.0; 2], [inner[1], radii[1]], height, 1.0, outside);
        self.ring([0.0; 2], [0.0, inner[0]], thickness, 1.0, inside);
    }

    /// Adds a sphere.
    pub(super) fn sphere(&mut self, centre: Point, radius: f32, colour: Colour) {
        const RINGS: usize = 9;
        let normal = |ring: usize, side: usize| {
            let (down, across) = (ring as f32 / RINGS as f32 * TAU / 2.0).sin_cos();
            let (sin, cos) = (side as f32 / SIDES as f32 * TAU).sin_cos();
            [down * cos, down * sin, across]
        };
        let vertex = |normal: Point| [0, 1, 2].map(|axis| centre[axis] + radius * normal[axis]);
        for ring in 0..RINGS {
            for side in 0..SIDES {
                let corners = [
                    normal(ring, side),
                    normal(ring + 1, side),
                    normal(ring + 1, side + 1),
                    normal(ring, side + 1),
                ];
                for [a, b, c] in [[0, 1, 2], [0, 2, 3]] {
                    let normals = [corners[a], corners[b], corners[c]];
                    self.triangles.push(Triangle {
                        vertices: normals.map(vertex),
                        normals,
                        colour,
                    });
                }
            }
        }
    }
}
