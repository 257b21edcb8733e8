//! Renders scenes: a rasterizer with a depth buffer, a lamp above the table and the shadows that it casts.
//!
//! A pixel is the mean of four samples. The lamp is so far away that its light is parallel: a point is lit unless its line
//! along the light reaches something higher. The shadow of the gripper on the table shows how high the gripper is.

use super::camera::Camera;
use super::chain::{BASE, JOINTS, links};
use super::look;
use super::mesh::{Colour, Mesh, Point, Triangle};
use super::objects::{Body, Kind};
use super::scene::Scene;
use super::space::{Rotation, Transform, Vector, add, norm, scale, sub};
use super::{OPEN_M, TABLE_CENTRE};
use crate::render::texture::Texture;

/// Samples along each side of a pixel.
const SAMPLES: usize = 2;
/// The direction to the lamp.
const LAMP: Point = [0.116, 0.213, 0.970];
/// The direction to a dimmer light without shadows.
const FILL: Point = [0.788, -0.394, 0.473];
/// Brightness of a surface that faces away from both lights, and what each adds at most.
const AMBIENT: f32 = 0.40;
const LAMP_LIGHT: f32 = 0.62;
const FILL_LIGHT: f32 = 0.22;
/// Edge of the shadow map in texels, its first corner and its edge in metres.
const MAP: usize = 512;
const MAP_START: [f32; 2] = [-0.6, -0.75];
const MAP_EDGE_M: f32 = 1.5;
/// The table's surface: half its size along x and y in metres.
const TABLE_HALF: [f64; 2] = [0.52, 0.62];
const TABLE_THICKNESS_M: f64 = 0.04;
const TABLE_COLOUR: Colour = [196, 172, 138];
const FLOOR: Colour = [92, 98, 106];

/// A sample of the image.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    /// The inverse of the distance along the camera's axis, in 1/m.
    nearness: f32,
    colour: Colour,
    /// Light from the lamp if nothing is in its way, and other light, in 200ths.
    lamp: u8,
    other: u8,
}

/// A vertex in the image.
#[derive(Clone, Copy)]
struct Corner {
    across: f32,
    down: f32,
    nearness: f32,
    lamp: f32,
    other: f32,
}

/// Renders scenes as images of one size.
#[derive(Debug, Clone)]
pub struct Renderer {
    size: (usize, usize),
    camera: Camera,
    /// The table and what is behind it.
    background: Vec<Sample>,
    samples: Vec<Sample>,
    /// Height in metres of the highest thing along the light.
    shadows: Vec<f32>,
    objects: Vec<Mesh>,
    hand: Mesh,
    fingers: [Mesh; 2],
    tubes: Vec<Mesh>,
    joints: Vec<Mesh>,
}

impl Renderer {
    /// A renderer of images of `width` × `height` pixels.
    #[must_use]
    pub fn new((width, height): (usize, usize)) -> Self {
        let camera = Camera::front((width * SAMPLES, height * SAMPLES));
        let background = background(&camera, (width * SAMPLES, height * SAMPLES));
        Self {
            size: (width, height),
            camera,
            samples: background.clone(),
            background,
            shadows: vec![0.0; MAP * MAP],
            objects: Kind::ALL.map(|kind| look::object(kind, 0.0)).into(),
            hand: look::hand(),
            fingers: [look::finger(-1.0), look::finger(1.0)],
            tubes: look::TUBES.map(|(radius, colour)| look::tube(radius, colour)).into(),
            joints: look::TUBES.map(|(radius, _)| look::joint(radius)).into(),
        }
    }

    /// Width and height of the images in pixels.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// The pixels of a scene: rows of red, green and blue bytes.
    #[must_use]
    pub fn draw(&mut self, scene: &Scene) -> Vec<u8> {
        let mut canvas = Canvas {
            camera: &self.camera,
            width: self.size.0 * SAMPLES,
            height: self.size.1 * SAMPLES,
            samples: std::mem::take(&mut self.samples),
            shadows: std::mem::take(&mut self.shadows),
        };
        canvas.samples.clone_from(&self.background);
        canvas.shadows.fill(TABLE_CENTRE[2] as f32);
        for body in &scene.bodies {
            self.draw_object(&mut canvas, body);
        }
        self.draw_arm(&mut canvas, scene);
        let pixels = canvas.resolve();
        (self.samples, self.shadows) = (canvas.samples, canvas.shadows);
        pixels
    }

    fn draw_object(&self, canvas: &mut Canvas<'_>, body: &Body) {
        if body.pressed_m > 0.0 {
            return canvas.mesh(&look::object(body.kind, body.pressed_m), &body.pose, 1.0);
        }
        if let Some(mesh) = self.objects.get(body.kind.index()) {
            canvas.mesh(mesh, &body.pose, 1.0);
        }
    }

    fn draw_arm(&self, canvas: &mut Canvas<'_>, scene: &Scene) {
        let links = links(&scene.joints);
        let gripper = links[JOINTS];
        let hand_top = f64::from(look::FINGER_M + 2.0 * look::HAND_HALF[2]);
        let mut points = vec![BASE];
        // The other frames have their origin where the one before has it.
        points.extend([0, 2, 3, 4, 6].map(|link| links[link].position));
        points.push(gripper.apply([0.0, 0.0, -hand_top]));
        for (tube, ends) in self.tubes.iter().zip(points.windows(2)) {
            let along = sub(ends[1], ends[0]);
            let length = norm(along);
            if length > 1e-6 {
                let rotation = Rotation::with_z(scale(along, 1.0 / length));
                canvas.mesh(tube, &Transform { rotation, position: ends[0] }, length as f32);
            }
        }
        for (joint, &position) in self.joints.iter().zip(&points[1..]) {
            canvas.mesh(joint, &Transform { rotation: Rotation::IDENTITY, position }, 1.0);
        }
        canvas.mesh(&self.hand, &gripper, 1.0);
        for (mesh, side) in self.fingers.iter().zip([-0.5, 0.5]) {
            let inner = side * scene.opening_m.clamp(0.0, OPEN_M);
            let position = gripper.apply([0.0, inner, 0.0]);
            canvas.mesh(mesh, &Transform { rotation: gripper.rotation, position }, 1.0);
        }
    }
}

/// The buffers of an image while it is drawn.
struct Canvas<'a> {
    camera: &'a Camera,
    width: usize,
    height: usize,
    samples: Vec<Sample>,
    shadows: Vec<f32>,
}

fn single(v: Vector) -> Point {
    v.map(|value| value as f32)
}

fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn minus(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn cross(a: Point, b: Point) -> Point {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// Light from the lamp, if nothing is in its way, and other light on a surface with this normal.
fn light(normal: Point) -> (f32, f32) {
    let lamp = LAMP_LIGHT * dot(normal, LAMP).max(0.0);
    (lamp, AMBIENT + FILL_LIGHT * dot(normal, FILL).max(0.0))
}

/// The point of the table's plane that a point casts its shadow on, in texels of the shadow map.
fn shadow_at(point: Point) -> [f32; 2] {
    let height = point[2] - TABLE_CENTRE[2] as f32;
    [0, 1].map(|axis| {
        let at = point[axis] - LAMP[axis] / LAMP[2] * height;
        (at - MAP_START[axis]) * (MAP as f32 / MAP_EDGE_M)
    })
}

impl Canvas<'_> {
    /// Draws a mesh, stretched along its z axis, into the image and the shadow map.
    fn mesh(&mut self, mesh: &Mesh, pose: &Transform, stretch: f32) {
        let axes = [0, 1, 2].map(|axis| single(pose.rotation.axis(axis)));
        let origin = single(pose.position);
        let eye = single(self.camera.position);
        let turn =
            |v: Point| [0, 1, 2].map(|i| axes[0][i] * v[0] + axes[1][i] * v[1] + axes[2][i] * v[2]);
        let place = |v: Point| {
            let v = turn([v[0], v[1], v[2] * stretch]);
            [v[0] + origin[0], v[1] + origin[1], v[2] + origin[2]]
        };
        for Triangle { vertices, normals, colour } in &mesh.triangles {
            let vertices = vertices.map(place);
            let normals = normals.map(turn);
            let face = cross(minus(vertices[1], vertices[0]), minus(vertices[2], vertices[0]));
            // The order of the corners says nothing about the outside.
            let outward =
                if dot(face, normals[0]) + dot(face, normals[1]) < 0.0 { -1.0 } else { 1.0 };
            if outward * dot(face, LAMP) > 0.0 {
                self.cast_shadow(vertices);
            }
            if outward * dot(face, minus(eye, vertices[0])) > 0.0 {
                self.triangle(vertices, normals, *colour);
            }
        }
    }

    fn triangle(&mut self, vertices: [Point; 3], normals: [Point; 3], colour: Colour) {
        let camera = self.camera;
        let (eye, focal) = (single(camera.position), camera.focal_px as f32);
        let [right, up, forward] = [camera.right, camera.up, camera.forward].map(single);
        let middle = [self.width as f32 / 2.0, self.height as f32 / 2.0];
        let mut corners = [0, 1, 2].map(|i| {
            let to = minus(vertices[i], eye);
            let nearness = 1.0 / dot(to, forward).max(1e-3);
            let (lamp, other) = light(normals[i]);
            Corner {
                across: middle[0] + dot(to, right) * focal * nearness,
                down: middle[1] - dot(to, up) * focal * nearness,
                nearness,
                lamp,
                other,
            }
        });
        // Nothing of a scene is this near; a triangle that is would have no image.
        if corners.iter().any(|corner| corner.nearness > 20.0) {
            return;
        }
        let [a, b, c] = corners;
        if (b.across - a.across) * (c.down - a.down) < (b.down - a.down) * (c.across - a.across) {
            corners.swap(1, 2);
        }
        let (width, height) = (self.width, self.height);
        let samples = &mut self.samples;
        let at = corners.map(|corner| [corner.across, corner.down]);
        rasterize(at, (width, height), |x, y, weights| {
            let mix = |value: fn(&Corner) -> f32| {
                weights[0] * value(&corners[0])
                    + weights[1] * value(&corners[1])
                    + weights[2] * value(&corners[2])
            };
            let nearness = mix(|corner| corner.nearness);
            let sample = &mut samples[y * width + x];
            if nearness > sample.nearness {
                let lamp = (mix(|corner| corner.lamp) * 200.0) as u8;
                let other = (mix(|corner| corner.other) * 200.0) as u8;
                *sample = Sample { nearness, colour, lamp, other };
            }
        });
    }

    fn cast_shadow(&mut self, vertices: [Point; 3]) {
        let mut at = vertices.map(shadow_at);
        let mut heights = vertices.map(|vertex| vertex[2]);
        let [a, b, c] = at;
        if (b[0] - a[0]) * (c[1] - a[1]) < (b[1] - a[1]) * (c[0] - a[0]) {
            at.swap(1, 2);
            heights.swap(1, 2);
        }
        let shadows = &mut self.shadows;
        rasterize(at, (MAP, MAP), |x, y, weights| {
            let height = dot(weights, heights);
            let highest = &mut shadows[y * MAP + x];
            *highest = highest.max(height);
        });
    }

    /// The image: the samples in the light that reaches them, averaged over the pixels.
    fn resolve(&self) -> Vec<u8> {
        let camera = self.camera;
        let eye = single(camera.position);
        let (width, height) = (self.width, self.height);
        let small = width / SAMPLES;
        let across = single(scale(camera.right, 1.0 / camera.focal_px));
        let mut pixels = Vec::with_capacity(small * (height / SAMPLES) * 3);
        let mut sums = vec![[0.0_f32; 3]; small];
        for y in 0..height {
            let mut ray = single(camera.ray(0.5, y as f64 + 0.5));
            let row = &self.samples[y * width..(y + 1) * width];
            for (x, sample) in row.iter().enumerate() {
                let mut brightness = f32::from(sample.other);
                if sample.lamp > 0 {
                    let metres = 1.0 / sample.nearness;
                    let point = [0, 1, 2].map(|axis| eye[axis] + ray[axis] * metres);
                    if self.is_lit(point, sample.lamp) {
                        brightness += f32::from(sample.lamp);
                    }
                }
                let sum = &mut sums[x / SAMPLES];
                for (total, channel) in sum.iter_mut().zip(sample.colour) {
                    *total += (f32::from(channel) * brightness / 200.0).min(255.0);
                }
                for (part, step) in ray.iter_mut().zip(across) {
                    *part += step;
                }
            }
            if (y + 1) % SAMPLES == 0 {
                let per_pixel = (SAMPLES * SAMPLES) as f32;
                for sum in &mut sums {
                    pixels.extend(sum.map(|total| (total / per_pixel + 0.5) as u8));
                    *sum = [0.0; 3];
                }
            }
        }
        pixels
    }

    /// Whether light of the lamp reaches a point of a surface.
    fn is_lit(&self, point: Point, lamp: u8) -> bool {
        let [x, y] = shadow_at(point);
        if !(0.0..MAP as f32).contains(&x) || !(0.0..MAP as f32).contains(&y) {
            return true;
        }
        // Texels of a steep surface differ in height.
        let steepness = 1.0 - f32::from(lamp) / (200.0 * LAMP_LIGHT);
        self.shadows[y as usize * MAP + x as usize] <= point[2] + 0.004 + 0.03 * steepness
    }
}

/// Calls `each` for the cells whose centre is in the triangle, with the weights of its corners.
fn rasterize(
    [a, b, c]: [[f32; 2]; 3],
    (width, height): (usize, usize),
    mut each: impl FnMut(usize, usize, [f32; 3]),
) {
    let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
    let bounds = |axis: usize, cells: usize| {
        let low = a[axis].min(b[axis]).min(c[axis]) - 0.5;
        let high = a[axis].max(b[axis]).max(c[axis]) + 0.5;
        (low.max(0.0) as usize, high.clamp(0.0, cells as f32) as usize)
    };
    let (left, right) = bounds(0, width);
    let (top, bottom) = bounds(1, height);
    if area < 1e-9 {
        return;
    }
    // The weight of a corner: its distance from the opposite edge.
    let edge = |from: [f32; 2], to: [f32; 2]| {
        let [across, down] = [(from[1] - to[1]) / area, (to[0] - from[0]) / area];
        let start = (left as f32 + 0.5 - from[0]) * across + (top as f32 + 0.5 - from[1]) * down;
        (across, down, start)
    };
    let edges = [edge(b, c), edge(c, a), edge(a, b)];
    let mut row = edges.map(|(.., start)| start);
    for y in top..bottom {
        let mut weights = row;
        for x in left..right {
            if weights[0] >= 0.0 && weights[1] >= 0.0 && weights[2] >= 0.0 {
                each(x, y, weights);
            }
            for (weight, (across, ..)) in weights.iter_mut().zip(&edges) {
                *weight += across;
            }
        }
        for (weight, (_, down, _)) in row.iter_mut().zip(&edges) {
            *weight += down;
        }
    }
}

/// The table, its front and the floor.
fn background(camera: &Camera, (width, height): (usize, usize)) -> Vec<Sample> {
    let texture = Texture::new(&[27], TABLE_COLOUR).faint();
    let (lamp, other) = light([0.0, 0.0, 1.0]);
    let hundreds = |light: f32| (light * 200.0) as u8;
    let sample = |index: usize| {
        let (x, y) = (index % width, index / width);
        let ray = camera.ray(x as f64 + 0.5, y as f64 + 0.5);
        let to_height = |z: f64| (z - camera.position[2]) / ray[2];
        let at = |metres: f64| add(camera.position, scale(ray, metres));
        let inside = |point: Vector, axis: usize| {
            (point[axis] - TABLE_CENTRE[axis]).abs() <= TABLE_HALF[axis]
        };
        let metres = to_height(TABLE_CENTRE[2]);
        let point = at(metres);
        if ray[2] < 0.0 && inside(point, 0) && inside(point, 1) {
            let colour = texture.colour(point[0], point[1], 1.0);
            let nearness = (1.0 / metres) as f32;
            return Sample { nearness, colour, lamp: hundreds(lamp), other: hundreds(other) };
        }
        let front = at((TABLE_CENTRE[0] + TABLE_HALF[0] - camera.position[0]) / ray[0]);
        let below = TABLE_CENTRE[2] - front[2];
        if inside(front, 1) && (0.0..TABLE_THICKNESS_M).contains(&below) {
            return Sample { nearness: 0.0, colour: TABLE_COLOUR, lamp: 0, other: 120 };
        }
        // Darker towards the back.
        let metres = to_height(0.0);
        let distance = if metres > 0.0 { metres } else { 100.0 };
        let fade = (170.0 / (1.0 + 0.12 * distance)) as u8;
        Sample { nearness: 0.0, colour: FLOOR, lamp: 0, other: fade }
    };
    (0..width * height).map(sample).collect()
}

#[cfg(test)]
mod tests;
