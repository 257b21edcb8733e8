//! The front camera: it stands in front of the table and looks down at the robot.

use super::space::{Vector, add, cross, dot, scale, sub, unit};

/// Position of the camera in metres.
const POSITION: Vector = [1.3, 0.0, 1.66];
/// The point in the middle of the image.
const LOOKS_AT: Vector = [0.17, 0.0, 0.94];
/// Distance of the image plane in image heights.
const FOCAL: f64 = 1.7;

/// A pinhole camera. It faces the robot: its right is positive y, and x grows towards it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Camera {
    pub(crate) position: Vector,
    pub(crate) right: Vector,
    pub(crate) up: Vector,
    pub(crate) forward: Vector,
    width: f64,
    height: f64,
    /// Distance of the image plane in pixels.
    pub(crate) focal_px: f64,
}

impl Camera {
    /// The front camera with images of `width` × `height` pixels.
    pub(crate) fn front((width, height): (usize, usize)) -> Self {
        let forward = unit(sub(LOOKS_AT, POSITION));
        let right = unit(cross(forward, [0.0, 0.0, 1.0]));
        let (width, height) = (width as f64, height as f64);
        Self {
            position: POSITION,
            right,
            up: cross(right, forward),
            forward,
            width,
            height,
            focal_px: FOCAL * height,
        }
    }

    /// Where a point appears, in pixels from the upper left corner, and its distance along the camera's axis in metres.
    pub(crate) fn project(&self, point: Vector) -> ([f64; 2], f64) {
        let to = sub(point, self.position);
        let ahead = dot(to, self.forward);
        let scale = self.focal_px / ahead.max(1e-6);
        let across = self.width / 2.0 + dot(to, self.right) * scale;
        let down = self.height / 2.0 - dot(to, self.up) * scale;
        ([across, down], ahead)
    }

    /// The ray through a point of the image, with length 1 along the camera's axis.
    pub(crate) fn ray(&self, across: f64, down: f64) -> Vector {
        let right = (across - self.width / 2.0) / self.focal_px;
        let up = (self.height / 2.0 - down) / self.focal_px;
        add(self.forward, add(scale(self.right, right), scale(self.up, up)))
    }
}

/// Where a point of the world appears in a frame of any size with sides in this ratio of width to height: fractions of
/// the frame from its left and its upper border.
#[must_use]
pub fn image_position(point: [f64; 3], aspect: f64) -> [f64; 2] {
    let (at, _) = Camera { width: aspect, height: 1.0, focal_px: FOCAL, ..Camera::front((1, 1)) }
        .project(point);
    [at[0] / aspect, at[1]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::space::norm;

    #[test]
    fn right_is_positive_y_and_up_is_positive_z() {
        let at = |point| image_position(point, 1.0);
        let middle = at(LOOKS_AT);
        assert!((middle[0] - 0.5).abs() < 1e-9 && (middle[1] - 0.5).abs() < 1e-9, "{middle:?}");
        assert!(at(add(LOOKS_AT, [0.0, 0.1, 0.0]))[0] > 0.55);
        assert!(at(add(LOOKS_AT, [0.0, 0.0, 0.1]))[1] < 0.45);
        // Nearer things on the table are lower in the image.
        assert!(at(add(LOOKS_AT, [0.1, 0.0, 0.0]))[1] > 0.52);
    }

    #[test]
    fn the_ray_through_a_projected_point_leads_to_it() {
        let camera = Camera::front((224, 168));
        let point = [0.3, -0.2, 0.8];
        let ([across, down], ahead) = camera.project(point);
        let found = add(camera.position, scale(camera.ray(across, down), ahead));
        assert!(norm(sub(found, point)) < 1e-9);
        let fractions = image_position(point, 224.0 / 168.0);
        assert!(
            (fractions[0] - across / 224.0).abs() + (fractions[1] - down / 168.0).abs() < 1e-12
        );
    }
}
