use super::*;
use crate::arm::camera::image_position;
use crate::arm::chain::reach;
use crate::arm::space::lerp;

const SIZE: usize = 224;

fn scene(position: Vector, bodies: Vec<Body>) -> Scene {
    let joints = reach(&Transform { rotation: Rotation::DOWN, position }).unwrap();
    Scene { joints, opening_m: OPEN_M, bodies, held: None }
}

fn above_table(x: f64, y: f64, height: f64) -> Vector {
    [x, y, TABLE_CENTRE[2] + height]
}

fn pixel(pixels: &[u8], [x, y]: [usize; 2]) -> [i32; 3] {
    [0, 1, 2].map(|channel| i32::from(pixels[3 * (y * SIZE + x) + channel]))
}

fn at(point: Vector) -> [usize; 2] {
    image_position(point, 1.0).map(|part| (part * SIZE as f64) as usize)
}

/// The middle of the pixels with the colour of the fingers, in fractions of the image.
fn fingers(pixels: &[u8]) -> [f64; 2] {
    let is_finger = |at: &[usize; 2]| {
        let [red, green, blue] = pixel(pixels, *at);
        red > 70 && red * 10 > green * 14 && green > 2 * blue
    };
    let found: Vec<_> =
        (0..SIZE * SIZE).map(|index| [index % SIZE, index / SIZE]).filter(is_finger).collect();
    assert!(found.len() > 6, "{} pixels", found.len());
    [0, 1].map(|axis| {
        let sum: f64 = found.iter().map(|at| at[axis] as f64 + 0.5).sum();
        sum / found.len() as f64 / SIZE as f64
    })
}

#[test]
fn the_fingers_are_where_the_gripper_is_projected() {
    let mut renderer = Renderer::new((SIZE, SIZE));
    for position in
        [above_table(0.3, 0.1, 0.1), above_table(0.15, -0.2, 0.3), above_table(0.35, 0.0, 0.02)]
    {
        let found = fingers(&renderer.draw(&scene(position, vec![])));
        let [across, down] = image_position(position, 1.0);
        // The fingers reach up from the point between their tips.
        assert!((found[0] - across).abs() < 0.01, "{found:?} {across} {down}");
        assert!((-0.005..0.05).contains(&(down - found[1])), "{found:?} {across} {down}");
    }
}

/// Where the light that passes a point meets the table.
fn shadow_of(point: Vector) -> Vector {
    let height = point[2] - TABLE_CENTRE[2];
    let lamp = LAMP.map(f64::from);
    [point[0] - lamp[0] / lamp[2] * height, point[1] - lamp[1] / lamp[2] * height, TABLE_CENTRE[2]]
}

#[test]
fn the_gripper_casts_its_shadow_on_the_table_along_the_light() {
    let mut renderer = Renderer::new((SIZE, SIZE));
    let away = renderer.draw(&scene(above_table(0.1, -0.3, 0.4), vec![]));
    for height in [0.15, 0.25, 0.35] {
        let position = above_table(0.3, 0.15, height);
        let pixels = renderer.draw(&scene(position, vec![]));
        // Of an edge of the hand that the hand itself does not hide.
        let hand = [position[0], position[1] - 0.08, position[2] + 0.08];
        let shadow = at(shadow_of(hand));
        let (lit, dark) = (pixel(&away, shadow), pixel(&pixels, shadow));
        assert!(dark[0] * 10 < lit[0] * 7, "{height}: {lit:?} {dark:?}");
        // Beside it the table is as bright as without the gripper.
        let beside = at(shadow_of([hand[0] + 0.06, hand[1] - 0.05, hand[2]]));
        assert_eq!(pixel(&away, beside), pixel(&pixels, beside));
    }
}

#[test]
fn the_shadow_moves_away_from_the_gripper_as_it_rises() {
    let gap = |height: f64| {
        let position = above_table(0.3, 0.1, height);
        let [a, b] = [position, shadow_of(position)].map(|point| image_position(point, 1.0));
        (a[0] - b[0]).hypot(a[1] - b[1])
    };
    assert!(gap(0.1) > 0.04 && gap(0.2) > 1.8 * gap(0.1) && gap(0.4) > 1.8 * gap(0.2));
}

#[test]
fn a_nearer_object_hides_what_is_behind_it() {
    let mut renderer = Renderer::new((SIZE, SIZE));
    let gripper = above_table(0.1, -0.3, 0.4);
    let near = Body::new(Kind::PurpleCan, above_table(0.4, 0.2, 0.0), 0.0);
    let ray = lerp(renderer.camera.position, near.middle(), 1.1);
    let behind = Body::new(Kind::OrangeBall, [ray[0], ray[1], TABLE_CENTRE[2]], 0.0);
    let both = renderer.draw(&scene(gripper, vec![behind, near]));
    assert_eq!(both, renderer.draw(&scene(gripper, vec![near, behind])));
    let [red, green, blue] = pixel(&both, at(near.middle()));
    assert!(blue > red && red > green, "{red} {green} {blue}");
}

#[test]
fn an_image_is_the_same_with_a_renderer_that_has_drawn_before() {
    let body = Body::new(Kind::RedCup, above_table(0.3, 0.0, 0.0), 0.4);
    let scene = scene(above_table(0.2, 0.1, 0.2), vec![body]);
    let mut used = Renderer::new((112, 84));
    let _ = used.draw(&self::scene(above_table(0.3, -0.1, 0.1), vec![]));
    let pixels = used.draw(&scene);
    assert_eq!(pixels.len(), 112 * 84 * 3);
    assert_eq!(pixels, Renderer::new((112, 84)).draw(&scene));
}

#[test]
fn every_object_looks_different_from_every_other() {
    let mut renderer = Renderer::new((SIZE, SIZE));
    let gripper = above_table(0.1, -0.3, 0.4);
    let mut draw = |kind| {
        let body = Body::new(kind, above_table(0.3, 0.1, 0.0), 0.0);
        renderer.draw(&scene(gripper, vec![body]))
    };
    let images: Vec<Vec<u8>> = Kind::ALL.into_iter().map(&mut draw).collect();
    for (index, image) in images.iter().enumerate() {
        for (other, kind) in images[index + 1..].iter().zip(&Kind::ALL[index + 1..]) {
            let differing = image.chunks(3).zip(other.chunks(3)).filter(|(a, b)| {
                a.iter().zip(*b).map(|(a, b)| a.abs_diff(*b) as u32).sum::<u32>() > 60
            });
            assert!(differing.count() > 25, "{:?} {kind:?}", Kind::ALL[index]);
        }
    }
}

#[test]
fn the_workspace_is_in_view() {
    for x in [0.09, 0.42] {
        for y in [-0.3, 0.3] {
            for height in [0.0, 0.3] {
                let [across, down] = image_position(above_table(x, y, height), 1.0);
                assert!(
                    (0.02..0.98).contains(&across) && (0.0..0.95).contains(&down),
                    "{x} {y} {height}"
                );
            }
        }
    }
}
