//! Vectors, rotations and rigid transforms of three-dimensional space.

/// A point or direction, in metres along x, y and z.
pub(crate) type Vector = [f64; 3];

/// The sum of two vectors.
pub(crate) fn add(a: Vector, b: Vector) -> Vector {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

/// The vector from `b` to `a`.
pub(crate) fn sub(a: Vector, b: Vector) -> Vector {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// A vector `factor` times as long.
pub(crate) fn scale(a: Vector, factor: f64) -> Vector {
    a.map(|value| value * factor)
}

/// The dot product.
pub(crate) fn dot(a: Vector, b: Vector) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// The cross product.
pub(crate) fn cross(a: Vector, b: Vector) -> Vector {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// The length of a vector.
pub(crate) fn norm(a: Vector) -> f64 {
    dot(a, a).sqrt()
}

/// The vector of length 1 in the direction of `a`.
pub(crate) fn unit(a: Vector) -> Vector {
    scale(a, 1.0 / norm(a).max(1e-12))
}

/// The point `part` of the way from `a` to `b`.
pub(crate) fn lerp(a: Vector, b: Vector, part: f64) -> Vector {
    add(a, scale(sub(b, a), part))
}

/// A rotation matrix; its columns are the rotated axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rotation {
    /// The rows of the matrix.
    rows: [Vector; 3],
}

impl Rotation {
    /// No rotation.
    pub(crate) const IDENTITY: Self =
        Self { rows: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]] };

    /// The rotation of a gripper that points down: x stays, y and z are reversed.
    pub(crate) const DOWN: Self =
        Self { rows: [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]] };

    /// The rotation about x by an angle in radians.
    pub(crate) fn about_x(angle: f64) -> Self {
        let (sin, cos) = angle.sin_cos();
        Self { rows: [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]] }
    }

    /// The rotation about y by an angle in radians.
    pub(crate) fn about_y(angle: f64) -> Self {
        let (sin, cos) = angle.sin_cos();
        Self { rows: [[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]] }
    }

    /// The rotation about z by an angle in radians.
    pub(crate) fn about_z(angle: f64) -> Self {
        let (sin, cos) = angle.sin_cos();
        Self { rows: [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]] }
    }

    /// The rotation that turns z into `z`, which has length 1.
    pub(crate) fn with_z(z: Vector) -> Self {
        let other = if z[0].abs() < 0.9 { [1.0, 0.0, 0.0] } else { [0.0, 1.0, 0.0] };
        let x = unit(cross(other, z));
        Self::of_columns([x, cross(z, x), z])
    }

    fn of_columns([x, y, z]: [Vector; 3]) -> Self {
        Self { rows: [[x[0], y[0], z[0]], [x[1], y[1], z[1]], [x[2], y[2], z[2]]] }
    }

    /// A rotated axis: 0 for x, 1 for y, 2 for z.
    pub(crate) fn axis(&self, axis: usize) -> Vector {
        self.rows.map(|row| row[axis])
    }

    /// The rotated vector.
    pub(crate) fn apply(&self, v: Vector) -> Vector {
        self.rows.map(|row| dot(row, v))
    }

    /// The rotation by `other` followed by this one.
    pub(crate) fn then_after(&self, other: &Self) -> Self {
        Self::of_columns([0, 1, 2].map(|axis| self.apply(other.axis(axis))))
    }

    /// The inverse rotation.
    pub(crate) fn inverse(&self) -> Self {
        Self::of_columns(self.rows)
    }

    /// The axis of the rotation times its angle in radians. The angle is below π.
    pub(crate) fn vector(&self) -> Vector {
        let [a, b, c] = self.rows;
        let twice_sine = [c[1] - b[2], a[2] - c[0], b[0] - a[1]];
        let sine = norm(twice_sine) / 2.0;
        let cosine = (a[0] + b[1] + c[2] - 1.0) / 2.0;
        let ratio = if sine < 1e-9 { 1.0 } else { sine.atan2(cosine) / sine };
        scale(twice_sine, ratio / 2.0)
    }

    /// The unit quaternion x, y, z, w. Of the two signs it has the one closer to a gripper that points down.
    pub(crate) fn quaternion(&self) -> [f64; 4] {
        let [a, b, c] = self.rows;
        let square = [
            1.0 + a[0] - b[1] - c[2],
            1.0 - a[0] + b[1] - c[2],
            1.0 - a[0] - b[1] + c[2],
            1.0 + a[0] + b[1] + c[2],
        ];
        let [xx, yy, zz, ww] = square.map(|value| value.max(0.0));
        let (xy, xz, yz) = (a[1] + b[0], a[2] + c[0], b[2] + c[1]);
        let (xw, yw, zw) = (c[1] - b[2], a[2] - c[0], b[0] - a[1]);
        let largest = xx.max(yy).max(zz).max(ww);
        // The row of the largest component has no cancellation.
        let row = match largest {
            value if value == xx => [xx, xy, xz, xw],
            value if value == yy => [xy, yy, yz, yw],
            value if value == zz => [xz, yz, zz, zw],
            _ => [xw, yw, zw, ww],
        };
        let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        let sign = if row[0] < 0.0 { -1.0 } else { 1.0 };
        row.map(|value| sign * value / length)
    }
}

/// A rigid transform: a rotation followed by a translation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Transform {
    /// The rotation.
    pub(crate) rotation: Rotation,
    /// The position of the origin.
    pub(crate) position: Vector,
}

impl Transform {
    /// The position of a point of the frame.
    pub(crate) fn apply(&self, point: Vector) -> Vector {
        add(self.position, self.rotation.apply(point))
    }

    /// The transform by `other` followed by this one.
    pub(crate) fn then_after(&self, other: &Self) -> Self {
        Self {
            rotation: self.rotation.then_after(&other.rotation),
            position: self.apply(other.position),
        }
    }

    /// The inverse transform.
    pub(crate) fn inverse(&self) -> Self {
        let rotation = self.rotation.inverse();
        Self { rotation, position: scale(rotation.apply(self.position), -1.0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rotation(angles: [f64; 3]) -> Rotation {
        let [x, y, z] = angles;
        Rotation::about_z(z).then_after(&Rotation::about_y(y)).then_after(&Rotation::about_x(x))
    }

    fn near(a: Vector, b: Vector) -> bool {
        norm(sub(a, b)) < 1e-9
    }

    proptest! {
        #[test]
        fn a_quaternion_rotates_as_its_matrix(angles in prop::array::uniform3(-3.1..3.1)) {
            let rotation = rotation(angles);
            let [x, y, z, w] = rotation.quaternion();
            prop_assert!((x * x + y * y + z * z + w * w - 1.0).abs() < 1e-12);
            let v = [0.3, -0.7, 0.2];
            let axis = [x, y, z];
            // v + 2 w (q × v) + 2 q × (q × v)
            let once = cross(axis, v);
            let turned = add(add(v, scale(once, 2.0 * w)), scale(cross(axis, once), 2.0));
            prop_assert!(near(turned, rotation.apply(v)));
        }

        #[test]
        fn a_transform_and_its_inverse_cancel(
            angles in prop::array::uniform3(-3.1..3.1),
            position in prop::array::uniform3(-2.0..2.0),
        ) {
            let transform = Transform { rotation: rotation(angles), position };
            let v = [0.3, -0.7, 0.2];
            prop_assert!(near(transform.inverse().apply(transform.apply(v)), v));
            prop_assert!(near(transform.then_after(&transform.inverse()).apply(v), v));
        }

        #[test]
        fn the_vector_of_a_rotation_about_an_axis_is_its_angle(angle in -3.0..3.0) {
            prop_assert!(near(Rotation::about_y(angle).vector(), [0.0, angle, 0.0]));
        }
    }

    #[test]
    fn the_gripper_that_points_down_has_the_quaternion_about_x() {
        assert_eq!(Rotation::DOWN.quaternion(), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(Rotation::DOWN.apply([0.0, 0.0, 1.0]), [0.0, 0.0, -1.0]);
    }
}
