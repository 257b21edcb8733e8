//! Renders rooms: a ray caster whose textures have corner features for key-frame selection.

pub(crate) mod texture;

use embodied_r_data::scene::{Pose, Scene};

use crate::catalogue::{Kind, Shape, kind_named};
use texture::Texture;

/// Width of the videos in pixels.
pub(crate) const WIDTH: usize = 256;
/// Height of the videos in pixels.
pub(crate) const HEIGHT: usize = 192;

/// Renders the frames of one room.
pub(crate) struct Renderer {
    width: usize,
    height: usize,
    room_m: [f64; 3],
    /// Distance of the image plane in pixels.
    focal_px: f64,
    walls: [Texture; 4],
    floor: Texture,
    ceiling: Texture,
    solids: Vec<Solid>,
}

/// The render geometry of an object.
struct Solid {
    shape: Shape,
    centre: [f64; 2],
    half: [f64; 2],
    height_m: f64,
    side: Texture,
    top: Texture,
}

/// The intersection of a ray on the floor plan with a solid, in metres along the ray.
struct Crossing<'a> {
    enter: f64,
    exit: f64,
    solid: &'a Solid,
    /// Horizontal texture coordinate of the point of entry, in metres.
    along: f64,
    /// Brightness of the entered side.
    light: f64,
}

impl Renderer {
    /// A renderer of videos for `scene`, with textures generated from `seed`.
    pub(crate) fn new(scene: &Scene, seed: u64) -> Self {
        Self::of_size(scene, seed, (WIDTH, HEIGHT))
    }

    /// A renderer of frames of `width` × `height` pixels for `scene`, with textures generated from `seed`.
    pub(crate) fn of_size(scene: &Scene, seed: u64, (width, height): (usize, usize)) -> Self {
        let half_view = (scene.horizontal_fov_deg / 2.0).to_radians();
        let surface = |index: u64, colour: [u8; 3]| Texture::new(&[seed, index], colour);
        let solids = scene.objects.iter().enumerate().map(|(index, object)| {
            let kind = kind_named(&object.name).copied().unwrap_or(Kind {
                name: "",
                colour: [128, 128, 128],
                shape: Shape::Box,
                height_m: object.size_m[2],
            });
            let number = 16 + 2 * index as u64;
            Solid {
                shape: kind.shape,
                centre: [object.center_m[0], object.center_m[1]],
                half: [object.size_m[0] / 2.0, object.size_m[1] / 2.0],
                height_m: object.center_m[2] + object.size_m[2] / 2.0,
                side: surface(number, kind.colour).smooth(),
                top: surface(number + 1, kind.colour.map(|c| c.saturating_add(25))).smooth(),
            }
        });
        Self {
            width,
            height,
            room_m: scene.room_size_m,
            focal_px: width as f64 / 2.0 / half_view.tan(),
            walls: [
                surface(0, [198, 186, 170]),
                surface(1, [170, 190, 200]),
                surface(2, [186, 200, 172]),
                surface(3, [204, 178, 178]),
            ],
            floor: surface(4, [150, 128, 104]),
            ceiling: surface(5, [190, 188, 182]),
            solids: solids.collect(),
        }
    }

    /// Renders the view from `pose` into `rgb`, row-major, width × height × 3 bytes.
    pub(crate) fn draw(&self, pose: &Pose, rgb: &mut [u8]) {
        let (sin, cos) = pose.yaw_deg.to_radians().sin_cos();
        for x in 0..self.width {
            // Offset to the left, relative to the distance ahead.
            let left = (self.width as f64 / 2.0 - (x as f64 + 0.5)) / self.focal_px;
            let stretch = left.hypot(1.0);
            let way = [(cos - sin * left) / stretch, (sin + cos * left) / stretch];
            let column = Column::new(self, pose, way);
            for y in 0..self.height {
                let up = (self.height as f64 / 2.0 - (y as f64 + 0.5)) / self.focal_px / stretch;
                let pixel = 3 * (y * self.width + x);
                if let Some(out) = rgb.get_mut(pixel..pixel + 3) {
                    out.copy_from_slice(&column.colour(up));
                }
            }
        }
    }
}

/// State shared by the rays of one image column.
struct Column<'a> {
    renderer: &'a Renderer,
    from: [f64; 3],
    way: [f64; 2],
    /// Nearest first.
    crossings: Vec<Crossing<'a>>,
    wall_m: f64,
    wall: &'a Texture,
    wall_along: f64,
}

impl<'a> Column<'a> {
    fn new(renderer: &'a Renderer, pose: &Pose, way: [f64; 2]) -> Self {
        let from = pose.position_m;
        let mut crossings: Vec<_> =
            renderer.solids.iter().filter_map(|solid| solid.crossing(from, way)).collect();
        crossings.sort_by(|a, b| a.enter.total_cmp(&b.enter));
        let to_wall = |axis: usize| match way[axis] {
            along if along > 1e-12 => (renderer.room_m[axis] - from[axis]) / along,
            along if along < -1e-12 => -from[axis] / along,
            _ => f64::INFINITY,
        };
        let (to_x, to_y) = (to_wall(0), to_wall(1));
        let wall_m = to_x.min(to_y);
        let axis = usize::from(to_y < to_x);
        let side = 2 * axis + usize::from(way[axis] > 0.0);
        let other = 1 - axis;
        let wall_along = from[other] + way[other] * wall_m;
        Self { renderer, from, way, crossings, wall_m, wall: &renderer.walls[side], wall_along }
    }

    /// The colour along the ray with slope `up` (metres per metre).
    fn colour(&self, up: f64) -> [u8; 3] {
        let eye = self.from[2];
        let height_at = |metres: f64| eye + up * metres;
        let at = |metres: f64| {
            [self.from[0] + self.way[0] * metres, self.from[1] + self.way[1] * metres]
        };
        for Crossing { enter, exit, solid, along, light } in &self.crossings {
            let height = height_at(*enter);
            if (0.0..=solid.height_m).contains(&height) {
                return solid.side.colour(*along, height, light * faded(*enter));
            }
            if height > solid.height_m && height_at(*exit) < solid.height_m {
                let metres = (solid.height_m - eye) / up;
                let [x, y] = at(metres);
                return solid.top.colour(x, y, faded(metres));
            }
        }
        let height = height_at(self.wall_m);
        if height < 0.0 {
            let metres = -eye / up;
            let [x, y] = at(metres);
            return self.renderer.floor.colour(x, y, faded(metres));
        }
        if height > self.renderer.room_m[2] {
            let metres = (self.renderer.room_m[2] - eye) / up;
            let [x, y] = at(metres);
            return self.renderer.ceiling.colour(x, y, faded(metres));
        }
        self.wall.colour(self.wall_along, height, faded(self.wall_m))
    }
}

/// Slight attenuation of light with distance.
fn faded(metres: f64) -> f64 {
    1.0 / (1.0 + 0.03 * metres)
}

impl Solid {
    /// The ray's intersection with the solid's footprint, if in front.
    fn crossing(&self, from: [f64; 3], way: [f64; 2]) -> Option<Crossing<'_>> {
        let to = [self.centre[0] - from[0], self.centre[1] - from[1]];
        match self.shape {
            Shape::Cylinder => {
                let radius = self.half[0];
                let nearest = to[0] * way[0] + to[1] * way[1];
                let aside = to[0] * way[1] - to[1] * way[0];
                let inside = radius * radius - aside * aside;
                let (enter, exit) =
                    (nearest - inside.max(0.0).sqrt(), nearest + inside.max(0.0).sqrt());
                if inside <= 0.0 || enter <= 0.0 {
                    return None;
                }
                let normal = [(way[0] * enter - to[0]) / radius, (way[1] * enter - to[1]) / radius];
                let along = normal[1].atan2(normal[0]) * radius;
                let light = 0.8 + 0.2 * normal[0];
                Some(Crossing { enter, exit, solid: self, along, light })
            }
            Shape::Box => {
                let (mut enter, mut exit, mut entered) = (f64::NEG_INFINITY, f64::INFINITY, 0);
                for axis in 0..2 {
                    let slope = if way[axis].abs() < 1e-12 { 1e-12 } else { way[axis] };
                    let (a, b) = (
                        (to[axis] - self.half[axis]) / slope,
                        (to[axis] + self.half[axis]) / slope,
                    );
                    if a.min(b) > enter {
                        (enter, entered) = (a.min(b), axis);
                    }
                    exit = exit.min(a.max(b));
                }
                if enter >= exit || enter <= 0.0 {
                    return None;
                }
                let other = 1 - entered;
                let along = way[other] * enter - to[other] + self.half[other];
                let light = match (entered, way[entered] > 0.0) {
                    (0, true) => 0.7,
                    (0, false) => 1.0,
                    (_, true) => 0.85,
                    (_, false) => 0.95,
                };
                Some(Crossing { enter, exit, solid: self, along, light })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_data::scene::SceneObject;

    use super::*;
    use crate::world::draw as draw_room;

    fn render(scene: &Scene, pose: &Pose) -> Vec<u8> {
        let mut rgb = vec![0; WIDTH * HEIGHT * 3];
        Renderer::new(scene, 1).draw(pose, &mut rgb);
        rgb
    }

    fn room(objects: Vec<SceneObject>) -> (Scene, Pose) {
        let mut scene = draw_room(&[1]);
        scene.room_size_m = [8.0, 8.0, 2.6];
        scene.objects = objects;
        (scene, Pose { position_m: [4.0, 4.0, 1.2], yaw_deg: 0.0 })
    }

    fn object(name: &str, x: f64, y: f64) -> SceneObject {
        SceneObject { name: name.into(), center_m: [x, y, 0.75], size_m: [0.6, 0.6, 1.5] }
    }

    /// The image columns that differ from the image without objects.
    fn changed_columns(with: &[u8], without: &[u8]) -> Vec<usize> {
        (0..WIDTH)
            .filter(|x| {
                let pixel = 3 * (HEIGHT / 2 * WIDTH + x);
                with[pixel..pixel + 3] != without[pixel..pixel + 3]
            })
            .collect()
    }

    #[test]
    fn an_object_is_rendered_at_its_bearing() {
        let (empty, pose) = room(vec![]);
        let without = render(&empty, &pose);
        for (name, x, y, at) in
            [("shelf", 7.0, 4.0, 128.0), ("lamp", 6.0, 6.0, 0.0), ("shelf", 7.0, 2.5, 192.0)]
        {
            let (scene, pose) = room(vec![object(name, x, y)]);
            let columns = changed_columns(&render(&scene, &pose), &without);
            let middle = columns.iter().sum::<usize>() as f64 / columns.len() as f64;
            // An object at 45° is cut off by the image border.
            assert!((middle - at).abs() < 20.0, "{name}: {middle} instead of {at}");
        }
    }

    #[test]
    fn objects_behind_the_camera_are_not_rendered() {
        let (empty, pose) = room(vec![]);
        let (scene, _) = room(vec![object("shelf", 2.0, 4.0), object("lamp", 2.0, 5.0)]);
        assert_eq!(render(&scene, &pose), render(&empty, &pose));
    }

    #[test]
    fn a_nearer_object_occludes_a_farther_one() {
        let (near, pose) = room(vec![object("shelf", 5.5, 4.0)]);
        let (both, _) = room(vec![object("shelf", 5.5, 4.0), object("shelf", 7.0, 4.0)]);
        assert_eq!(render(&both, &pose), render(&near, &pose));
    }

    #[test]
    fn images_depend_on_the_seed() {
        let (scene, pose) = room(vec![]);
        assert_eq!(render(&scene, &pose), render(&scene, &pose));
        let mut other = vec![0; WIDTH * HEIGHT * 3];
        Renderer::new(&scene, 2).draw(&pose, &mut other);
        assert_ne!(render(&scene, &pose), other);
    }
}
