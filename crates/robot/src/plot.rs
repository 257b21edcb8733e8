//! A demonstration over time as SVG: position, gripper, and the key points.

use std::fmt::Write as _;

use crate::demonstration::Demonstration;
use crate::key_points::{Cause, KeyPoint};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
/// Height of a curve, and of the space above it.
const CURVE: f64 = 110.0;
const GAP: f64 = 34.0;

/// Curves of x, y, z and the gripper over frames, with a line at each key point and a tick at each start frame.
pub fn plot(demonstration: &Demonstration, key_points: &[KeyPoint], stride: usize) -> String {
    let axis = |axis: usize| -> Vec<f64> {
        demonstration.positions.iter().map(|position| position[axis]).collect()
    };
    let curves = [
        ("x (m)", "#2563eb", axis(0)),
        ("y (m)", "#16a34a", axis(1)),
        ("z (m)", "#9333ea", axis(2)),
        ("gripper", "#d97706", demonstration.gripper.clone()),
    ];
    let frames = demonstration.frames();
    let x =
        |frame: usize| LEFT + frame as f64 / (frames.max(2) - 1) as f64 * (WIDTH - LEFT - RIGHT);
    let height = GAP + 4.0 * (CURVE + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let title = format!("episode {}: {}", demonstration.episode, demonstration.title());
    text(&mut svg, (LEFT, 16.0), "start", &title);
    for (row, (name, color, values)) in curves.iter().enumerate() {
        let top = GAP + row as f64 * (CURVE + GAP);
        curve(&mut svg, top, values, color, x);
        text(&mut svg, (LEFT, top - 5.0), "start", name);
    }
    let bottom = height - GAP;
    for key_point in key_points {
        let at = x(key_point.frame);
        let (color, cause) = match key_point.cause {
            Cause::Gripper => ("#d97706", "gripper"),
            Cause::Stop => ("#dc2626", "stop"),
            Cause::End => ("#52525b", "end"),
        };
        line(&mut svg, (at, GAP), (at, bottom), color);
        text(&mut svg, (at, bottom + 26.0), "middle", &format!("{} {cause}", key_point.frame));
    }
    let last = key_points.last().map_or(0, |last| last.frame);
    for frame in (0..last).step_by(stride.max(1)) {
        line(&mut svg, (x(frame), bottom), (x(frame), bottom + 6.0), "#18181b");
    }
    svg.push_str("</svg>\n");
    svg
}

/// A curve from `top` on, with its smallest and its largest value.
fn curve(svg: &mut String, top: f64, values: &[f64], color: &str, x: impl Fn(usize) -> f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // A string takes all that is written to it.
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"{CURVE}\" fill=\"none\" stroke=\"#d4d4d8\"/>",
        WIDTH - LEFT - RIGHT
    );
    if values.is_empty() {
        return text(svg, (LEFT + 8.0, top + 20.0), "start", "not recorded");
    }
    let range = if high > low { high - low } else { 1.0 };
    let y = |value: f64| top + CURVE - (value - low) / range * CURVE;
    let mut path = String::new();
    for (frame, value) in values.iter().enumerate() {
        let command = if frame == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{:.1} {:.1}", x(frame), y(*value));
    }
    let _ =
        writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>");
    text(svg, (LEFT - 6.0, top + 10.0), "end", &format!("{high:.3}"));
    text(svg, (LEFT - 6.0, top + CURVE), "end", &format!("{low:.3}"));
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), color: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#18181b\">{escaped}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_points::{Stillness, key_points};
    use crate::scripted::demonstration;

    #[test]
    fn key_points_and_start_frames_are_marked() {
        let mut demonstration = demonstration(0, 3);
        demonstration.tasks[0].task = "put <it> in & out".to_owned();
        let found = key_points(&demonstration, Stillness::Displacement(0.005), 0.5);
        let svg = plot(&demonstration, &found, 10);
        let last = found.last().unwrap().frame;
        assert_eq!(svg.matches("<line").count(), found.len() + last.div_ceil(10));
        assert_eq!(svg.matches("<path").count(), 4);
        assert!(svg.contains("episode 3: put &lt;it&gt; in &amp; out"), "{svg}");
        assert!(found.iter().all(|it| svg.contains(&format!(">{} ", it.frame))));
    }

    #[test]
    fn a_gripper_that_is_not_recorded_has_no_curve() {
        let demonstration = Demonstration { gripper: Vec::new(), ..demonstration(0, 3) };
        let svg = plot(&demonstration, &[], 10);
        assert_eq!(svg.matches("<path").count(), 3);
        assert!(svg.contains("not recorded"));
    }
}
